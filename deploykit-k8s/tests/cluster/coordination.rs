//! Locks for services, kept as Leases.

use std::time::Duration;

use deploykit_conformance::contract;
use deploykit_core::Coordinator;
use deploykit_k8s::{Coordination, K8s};

use super::config;

async fn open() -> Coordination {
    K8s::open(config()).await.unwrap().coordination()
}

pub(crate) async fn leases_keep_to_the_contract() {
    let name = format!("kit/{:x}: any \"name\"", std::process::id());
    contract::coordination(&open().await, &name).await;
}

/// Two that do not know of each other, each with a connection of its own.
pub(crate) async fn a_lock_changes_hands_with_growing_tokens() {
    let name = format!("turns-{:x}", std::process::id());
    let (one, other) = (open().await, open().await);
    let ttl = Duration::from_secs(5);
    let mut last = 0;
    for turn in 0..6 {
        let (who, next) = if turn % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let held = who.lock(&name, "now", ttl).await.unwrap();
        assert!(held.token() > last, "{} after {last}", held.token());
        last = held.token();
        let waiting = tokio::time::timeout(Duration::from_millis(700), next.lock(&name, "x", ttl));
        assert!(waiting.await.is_err(), "one holder at a time");
        held.release().await.unwrap();
    }
}
