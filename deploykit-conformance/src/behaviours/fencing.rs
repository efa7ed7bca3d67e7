//! Deployers that come too late.

use std::time::Duration;

use deploykit_core::model::ServiceName;
use deploykit_core::{
    ErrorKind, EventSender, Expected, Fencing, Goal, Lease, Result, Step, StepContext,
};

use crate::test::{Test, name};

async fn execute(t: &Test, lease: &Lease, service: ServiceName) -> Result<()> {
    let revision = t.history().await.pop().unwrap();
    let (events, _) = EventSender::channel();
    let context = StepContext {
        fence: lease.fence.clone(),
        revision: revision.number,
        target: revision.app.into(),
        kept: Default::default(),
        events,
    };
    let goal = Goal::RemoveService(service);
    t.backend().execute(&Step { goal, after: Vec::new(), causes: Vec::new() }, &context).await
}

pub(super) async fn a_late_deployer_changes_nothing(t: &Test) {
    t.up(t.web("1", 2)).await.unwrap();
    let frozen = t.another().await;
    let second = Duration::from_secs(1);
    let old = frozen.backend().state().acquire(t.name(), "frozen", second).await.unwrap();
    tokio::time::sleep(second * 2).await;
    let new = t.backend().state().acquire(t.name(), "next", second).await.unwrap();
    assert!(new.fence.epoch > old.fence.epoch);
    let before = t.seen().await;

    let state = frozen.backend().state();
    let late = state.put(&old.fence, "late", "\"late\"", Expected::Absent).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    let key = state.keys(t.name(), "").await.unwrap().remove(0);
    let version = state.get(t.name(), &key).await.unwrap().unwrap().version;
    let late = state.delete(&old.fence, &key, version).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);

    let late = execute(&frozen, &old, name("web")).await;
    match t.backend().capabilities().fencing {
        Fencing::Enforced => {
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
            assert_eq!(t.seen().await, before);
        }
        // It may have come through; then the next pass puts it right.
        Fencing::ObjectCas | Fencing::Detect => {
            t.backend().state().release(&new).await.unwrap();
            t.up(t.web("1", 2)).await.unwrap();
        }
    }
    t.backend().state().release(&new).await.unwrap();
    assert_eq!((t.ids("web").await.len(), t.version("web").await.as_str()), (2, "1"));
}
