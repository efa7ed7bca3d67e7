//! Plans.

use deploykit_core::{Change, ErrorKind, Plan, Silent};

use super::drift::remove_behind_our_back;
use crate::test::{Test, name};

pub(super) async fn a_plan_changes_nothing(t: &Test) {
    let plan = t.plan(t.web("1", 2)).await.unwrap();
    assert!(!plan.is_empty() && plan.to_string().contains("+ service web: new"), "{plan}");
    assert!(t.seen().await.is_empty() && t.history().await.is_empty());
    t.up(t.web("1", 2)).await.unwrap();
    let (before, calls) = (t.seen().await, t.calls());
    let app = || t.name().clone();
    let service = name("web");
    for change in [
        Change::Scale { app: app(), service: service.clone(), replicas: 5 },
        Change::Restart { app: app(), service },
        Change::Remove { app: app(), volumes: true },
    ] {
        let plan = t.deployer().plan(change).await.unwrap();
        assert!(!plan.is_empty(), "{plan}");
    }
    t.plan(t.web("2", 3)).await.unwrap();
    assert_eq!((t.seen().await, t.calls()), (before, calls));
    let nobody = Change::Scale { app: app(), service: name("nobody"), replicas: 1 };
    let unknown = t.deployer().plan(nobody).await.unwrap_err();
    assert_eq!(unknown.kind(), ErrorKind::NotFound, "{unknown}");
}

pub(super) async fn a_plan_is_applied_by_another_deployer(t: &Test) {
    let text = t.plan(t.web("1", 2)).await.unwrap().to_json().unwrap();
    let other = t.another().await;
    let plan = Plan::from_json(&text).unwrap();
    other.deployer().apply(plan, &mut Silent).await.unwrap();
    assert_eq!((t.ids("web").await.len(), t.version("web").await.as_str()), (2, "1"));
}

pub(super) async fn a_stale_plan_is_refused(t: &Test) {
    let first = t.plan(t.web("1", 1)).await.unwrap();
    t.up(t.web("2", 1)).await.unwrap();
    let before = t.seen().await;
    let by_revision = t.plan(t.web("3", 1)).await.unwrap();
    t.up(t.web("4", 1)).await.unwrap();
    let now = t.seen().await;
    assert_ne!(before, now);
    for stale in [first, by_revision] {
        let refused = t.deployer().apply(stale, &mut Silent).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.to_string().contains("stale"), "{refused}");
    }
    assert_eq!((t.seen().await, t.history().await.len()), (now, 2));

    let by_drift = t.plan(t.web("5", 1)).await.unwrap();
    remove_behind_our_back(t).await;
    let refused = t.deployer().apply(by_drift, &mut Silent).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("stale"), "{refused}");
    assert_eq!((t.ids("web").await.len(), t.history().await.len()), (0, 2));
}

pub(super) async fn an_edited_plan_is_refused(t: &Test) {
    let text = t.plan(t.web("1", 1)).await.unwrap().to_json().unwrap();
    let edited = text.replacen("\"new\"", "\"old\"", 1);
    assert_ne!(text, edited);
    let refused = Plan::from_json(&edited).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.to_string().contains("changed after it was made"), "{refused}");
}
