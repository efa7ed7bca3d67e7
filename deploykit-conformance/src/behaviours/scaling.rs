//! More and fewer instances.

use std::collections::BTreeSet;

use deploykit_core::Change;

use crate::test::{Test, name};

pub(super) async fn up_and_down_keeps_who_can_stay(t: &Test) {
    t.up(t.web("1", 2)).await.unwrap();
    let two: BTreeSet<String> = t.ids("web").await.into_iter().collect();
    let scale = |replicas| {
        t.change(Change::Scale { app: t.name().clone(), service: name("web"), replicas })
    };
    let load = t.load("web").await;
    assert_eq!(scale(4).await.unwrap().revision, Some(2));
    let four: BTreeSet<String> = t.ids("web").await.into_iter().collect();
    assert!(four.len() == 4 && four.is_superset(&two), "{two:?} {four:?}");
    load.more(100).await;
    // Each on a connection of its own: some backends balance connections, not requests.
    let mut answered = BTreeSet::new();
    for _ in 0..1000 {
        if answered != four {
            answered.insert(t.get("web", "/instance").await);
        }
    }
    assert_eq!(answered, four, "each of the four answers");
    scale(1).await.unwrap();
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    assert!(outcome.instances.is_subset(&four), "{outcome:#?}");
    let one: BTreeSet<String> = t.ids("web").await.into_iter().collect();
    assert!(one.len() == 1 && one.is_subset(&four), "{one:?}");

    scale(0).await.unwrap();
    assert!(t.ids("web").await.is_empty());
    assert!(t.seen().await.endpoints.contains_key("web"), "its address stays");
    let plan = t.plan(t.web("1", 2)).await.unwrap();
    assert!(plan.to_string().contains("replicas 0 -> 2"), "{plan}");
    t.up(t.web("1", 2)).await.unwrap();
    assert_eq!(t.ids("web").await.len(), 2);
    assert_eq!(t.version("web").await, "1");
}
