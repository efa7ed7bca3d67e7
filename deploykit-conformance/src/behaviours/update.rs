//! Updates under load.

use std::collections::BTreeSet;
use std::time::Duration;

use deploykit_core::Change;
use deploykit_core::memory::dial;

use crate::test::{Test, name};

/// Asserts that an update under load lost nothing and that both versions answered.
fn lost_nothing(outcome: &crate::Outcome) {
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    assert!(outcome.sent >= 500, "{outcome:#?}");
}

pub(super) async fn a_rolling_update_loses_no_request(t: &Test) {
    let web = |version| {
        let web = t.service("web", version).replicas(4).env(dial::START_DELAY_MS, "150");
        t.only(web)
    };
    t.up(web("1")).await.unwrap();
    let old: BTreeSet<String> = t.ids("web").await.into_iter().collect();
    let load = t.load("web").await;
    load.more(100).await;
    t.up(web("2")).await.unwrap();
    load.more(100).await;
    let outcome = load.stop().await;
    lost_nothing(&outcome);
    let versions: Vec<&str> = outcome.versions.keys().map(String::as_str).collect();
    assert_eq!(versions, ["1", "2"]);
    let new: BTreeSet<String> = t.ids("web").await.into_iter().collect();
    assert!(new.len() == 4 && new.is_disjoint(&old), "{old:?} {new:?}");
}

pub(super) async fn requests_in_flight_are_answered(t: &Test) {
    t.up(t.web("1", 1)).await.unwrap();
    let (slow, ()) = tokio::join!(t.get("web", "/slow?ms=2000"), async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        t.up(t.web("2", 1)).await.unwrap();
    });
    assert!(slow.contains(r#""version":"1""#), "{slow}");
    assert_eq!(t.version("web").await, "2");
}

pub(super) async fn a_restart_loses_no_request(t: &Test) {
    t.up(t.web("1", 2)).await.unwrap();
    let old = t.ids("web").await;
    let load = t.load("web").await;
    load.more(50).await;
    let restart = Change::Restart { app: t.name().clone(), service: name("web") };
    t.change(restart).await.unwrap();
    let outcome = load.stop().await;
    lost_nothing(&outcome);
    let new = t.ids("web").await;
    assert!(new.len() == 2 && new.iter().all(|id| !old.contains(id)), "{old:?} {new:?}");
    let plan = t.plan(t.web("1", 2)).await.unwrap();
    assert!(plan.is_empty(), "a restart that was asked for is not undone: {plan}");
}

pub(super) async fn one_that_ignores_its_signal_is_killed(t: &Test) {
    let stubborn = |version| {
        let web = t.service("web", version).env(dial::IGNORE_STOP, "1");
        t.only(web.stop_grace(Duration::from_secs(1)))
    };
    t.up(stubborn("1")).await.unwrap();
    let old = t.ids("web").await;
    t.up(stubborn("2")).await.unwrap();
    let new = t.ids("web").await;
    assert!(new.len() == 1 && new != old, "{old:?} {new:?}");
    assert!(t.seen().await.instance(&old[0]).is_none());
}
