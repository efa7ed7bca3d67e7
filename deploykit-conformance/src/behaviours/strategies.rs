//! Update strategies, watched from outside while they go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::{App, CanaryStep, Percent, Update};
use deploykit_core::{Instance, InstanceState, Observation, SpecHash};

use crate::test::Test;

fn web(t: &Test, version: &str, replicas: u32, update: Update) -> App {
    let web = t.service("web", version).replicas(replicas).update(update);
    t.only(web.env(dial::START_DELAY_MS, "250"))
}

/// Updates under load from version 1 to 2, and returns what was seen meanwhile.
async fn update(t: &Test, replicas: u32, update: Update) -> (Vec<Observation>, crate::Outcome) {
    t.up(web(t, "1", replicas, update.clone())).await.unwrap();
    let load = t.load("web").await;
    load.more(50).await;
    let watcher = t.another().await;
    let done = Arc::new(AtomicBool::new(false));
    let watching = tokio::spawn({
        let done = done.clone();
        async move {
            let mut seen = Vec::new();
            while !done.load(Ordering::Relaxed) {
                seen.push(watcher.seen().await);
                tokio::time::sleep(Duration::from_millis(15)).await;
            }
            seen
        }
    });
    t.up(web(t, "2", replicas, update)).await.unwrap();
    done.store(true, Ordering::Relaxed);
    let seen = watching.await.unwrap();
    load.more(50).await;
    let outcome = load.stop().await;
    assert_eq!(t.version("web").await, "2");
    assert_eq!(t.ids("web").await.len(), replicas as usize);
    assert!(seen.len() > 5, "too few looks to judge by");
    (seen, outcome)
}

fn live(seen: &Observation) -> Vec<&Instance> {
    seen.instances.iter().filter(|i| i.exit().is_none()).collect()
}

fn revisions<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> BTreeSet<SpecHash> {
    instances.into_iter().map(|i| i.hash.clone()).collect()
}

/// The instances that take new requests.
fn serving(seen: &Observation) -> Vec<&Instance> {
    let routed = &seen.endpoints["web"].routed;
    live(seen).into_iter().filter(|i| i.ready && routed.contains(&i.id)).collect()
}

pub(super) async fn rolling_keeps_its_bounds(t: &Test) {
    let (seen, outcome) = update(t, 3, Update::rolling().surge(1)).await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    for seen in &seen {
        let stopping = live(seen).iter().filter(|i| i.state == InstanceState::Stopping).count();
        assert!(live(seen).len() - stopping <= 4, "more than 3 and one: {seen:#?}");
        assert!(serving(seen).len() >= 3, "fewer than wanted: {seen:#?}");
    }
}

pub(super) async fn stop_first_never_has_too_many(t: &Test) {
    let (seen, outcome) = update(t, 3, Update::rolling().surge(0).unavailable(1)).await;
    assert_eq!(outcome.failed, 0, "two are always there: {outcome:#?}");
    // Controllers of an engine's own replace an instance once it has been asked to end.
    let counted = |instance: &&Instance| {
        !t.backend().capabilities().controllers || instance.state != InstanceState::Stopping
    };
    for seen in &seen {
        let live = live(seen).into_iter().filter(counted).count();
        assert!(live <= 3, "more than wanted: {seen:#?}");
        assert!(serving(seen).len() >= 2, "more than one fewer: {seen:#?}");
    }
    assert!(seen.iter().any(|seen| serving(seen).len() < 3));
}

pub(super) async fn recreate_never_runs_two_revisions(t: &Test) {
    let (seen, _) = update(t, 2, Update::recreate()).await;
    for seen in &seen {
        assert!(revisions(live(seen)).len() <= 1, "{seen:#?}");
    }
}

pub(super) async fn blue_green_moves_all_requests_at_once(t: &Test) {
    let (seen, outcome) = update(t, 3, Update::blue_green()).await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    for seen in &seen {
        let serving = serving(seen);
        assert_eq!(revisions(serving.iter().copied()).len(), 1, "{seen:#?}");
        assert_eq!(serving.len(), 3, "{seen:#?}");
    }
    assert!(seen.iter().any(|seen| revisions(live(seen)).len() == 2), "both were there at once");
}

pub(super) async fn canary_moves_by_growing_shares(t: &Test) {
    let step = |share| CanaryStep {
        share: Percent::new(share).unwrap(),
        hold: Duration::from_millis(600),
    };
    let (seen, outcome) = update(t, 4, Update::canary([step(25), step(50)])).await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    let old = seen[0].instances[0].hash.clone();
    let mut shares: Vec<usize> =
        seen.iter().map(|s| serving(s).iter().filter(|i| i.hash != old).count()).collect();
    assert!(shares.is_sorted(), "{shares:?}");
    shares.dedup();
    assert!(shares.contains(&1) && shares.contains(&2), "{shares:?}");
    for seen in &seen {
        assert!(serving(seen).len() >= 4, "fewer than wanted: {seen:#?}");
    }
}
