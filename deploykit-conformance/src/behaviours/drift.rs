//! What changed behind our back.

use std::time::Duration;

use deploykit_core::{EventSender, Goal, Step, StepContext};

use crate::test::{Test, name};

/// Removes the service `web` by the backend's own means, with no record of it.
pub(super) async fn remove_behind_our_back(t: &Test) {
    let state = t.backend().state();
    let lease = state.acquire(t.name(), "somebody", Duration::from_secs(30)).await.unwrap();
    let target = t.history().await.pop().unwrap().app;
    let (events, _) = EventSender::channel();
    let context = StepContext {
        fence: lease.fence.clone(),
        revision: 1,
        target: target.into(),
        kept: Default::default(),
        events,
    };
    let goal = Goal::RemoveService(name("web"));
    let step = Step { goal, after: Vec::new(), causes: Vec::new() };
    t.backend().execute(&step, &context).await.unwrap();
    state.release(&lease).await.unwrap();
    assert!(t.ids("web").await.is_empty());
}

pub(super) async fn what_was_removed_behind_our_back_is_named_and_made_again(t: &Test) {
    let app = || {
        let build = t.build().service(t.service("web", "1").replicas(2));
        build.service(t.service("other", "1")).validate().unwrap()
    };
    t.up(app()).await.unwrap();
    let other = t.ids("other").await;
    remove_behind_our_back(t).await;
    let plan = t.plan(app()).await.unwrap();
    let step = plan.steps().iter().find(|s| s.goal == Goal::Service(name("web"))).unwrap();
    assert!(step.causes.join(", ").contains("drift: 0 of 2 running"), "{plan}");
    t.up(app()).await.unwrap();
    assert_eq!((t.ids("web").await.len(), t.version("web").await.as_str()), (2, "1"));
    assert_eq!(t.ids("other").await, other);
    assert!(t.plan(app()).await.unwrap().is_empty());
}
