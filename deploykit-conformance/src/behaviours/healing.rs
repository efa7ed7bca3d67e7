//! Instances that end by themselves.

use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::{Probe, RestartPolicy};

use crate::test::Test;

pub(super) async fn a_crashed_instance_is_started_again(t: &Test) {
    let app = || {
        let crashing = t.service("web", "1").env(dial::EXIT_AFTER_MS, "3000");
        t.only(crashing.env(dial::EXIT_CODE, "1"))
    };
    t.up(app()).await.unwrap();
    let id = t.ids("web").await;
    t.eventually("a new start, and ready again", || async {
        let instances = t.instances("web").await;
        let instance = instances.get(&id[0])?;
        (instance.restarts >= 1 && instance.ready).then_some(())
    })
    .await;
    // Who routes to it may hear of it a moment later.
    let answered = t.eventually("an answer", || t.version_if_answered("web")).await;
    assert_eq!(answered, "1");
    assert_eq!(t.ids("web").await, id, "it is the same instance");
}

pub(super) async fn one_that_shall_not_be_started_again_is_drift(t: &Test) {
    let app = || {
        let web = t.service("web", "1").restart(RestartPolicy::Never);
        t.only(web.env(dial::EXIT_AFTER_MS, "1500"))
    };
    t.up(app()).await.unwrap();
    t.eventually("its end", || async { t.ids("web").await.is_empty().then_some(()) }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(t.ids("web").await.is_empty(), "it stays ended");
    let plan = t.plan(app()).await.unwrap();
    assert!(plan.to_string().contains("drift: 0 of 1 running"), "{plan}");
    t.up(app()).await.unwrap();
    assert_eq!(t.seen().await.instances.len(), 1, "the ended one is gone");
}

pub(super) async fn one_that_fails_its_liveness_probe_is_started_again(t: &Test) {
    let live = Probe::http("/healthz").interval(Duration::from_millis(200)).failure_threshold(2);
    let web = t.service("web", "1").liveness(live).env(dial::UNHEALTHY_AFTER_MS, "2000");
    t.up(t.only(web)).await.unwrap();
    t.eventually("a new start, and ready again", || async {
        let instances = t.instances("web").await;
        instances.values().all(|i| i.restarts >= 1 && i.ready).then_some(())
    })
    .await;
}
