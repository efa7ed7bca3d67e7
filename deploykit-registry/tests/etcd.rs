//! The contracts of registries and coordinators, and faults, on a real etcd.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used)]

mod servers;

use std::time::Duration;

use deploykit_conformance::contract;
use deploykit_core::ServiceRegistry;
use deploykit_registry::{Etcd, RegistryConfig};
use etcd_client::Client;
use futures_util::StreamExt;

fn url(test: &str) -> Option<String> {
    let hosts = servers::hosts("DEPLOYKIT_TEST_ETCD", test)?;
    Some(format!("etcd://{hosts}/{}", servers::unique(test)))
}

async fn open(url: &str) -> Etcd {
    Etcd::open(RegistryConfig::from_url(url).unwrap()).await.unwrap()
}

#[tokio::test]
async fn registry() {
    let Some(url) = url("registry") else { return };
    contract::registry(&open(&url).await, &servers::kit()).await;
}

#[tokio::test]
async fn coordination() {
    let Some(url) = url("coordination") else { return };
    contract::coordination(&open(&url).await, "kit").await;
}

#[tokio::test]
async fn holds() {
    servers::hold().await;
}

#[tokio::test]
async fn a_killed_process_vanishes() {
    let Some(url) = url("killed") else { return };
    let bound = servers::TTL + Duration::from_secs(1);
    servers::vanishes_with_its_process(&open(&url).await, &url, bound).await;
}

#[tokio::test]
async fn a_frozen_process_registers_again() {
    let Some(url) = url("frozen") else { return };
    servers::comes_back_with_its_process(&open(&url).await, &url).await;
}

#[tokio::test]
async fn steps_of_the_clock_do_not_matter() {
    let Some(url) = url("clock") else { return };
    servers::outlives_steps_of_the_clock(&open(&url).await, &url).await;
}

#[tokio::test]
async fn a_thousand_register_at_once() {
    let Some(url) = url("thousand") else { return };
    let registry = open(&url).await;
    let ids: Vec<_> = (0..1000).map(|id| format!("kit-{id:04}")).collect();
    let register = ids.iter().map(|id| registry.register(servers::instance(id), servers::TTL));
    let held = futures_util::future::try_join_all(register).await.unwrap();
    servers::until(&registry, 1000).await;
    drop(held);
    servers::until(&registry, 0).await;
}

#[tokio::test]
async fn a_lost_lease_is_made_good() {
    let Some(url) = url("lease") else { return };
    let registry = open(&url).await;
    let held = registry.register(servers::instance("one"), servers::TTL).await.unwrap();
    let (hosts, prefix) = url.trim_start_matches("etcd://").split_once('/').unwrap();
    let mut raw = Client::connect(hosts.split(',').collect::<Vec<_>>(), None).await.unwrap();
    let key = format!("{prefix}/kit/one");
    let found = raw.get(key.as_str(), None).await.unwrap();
    let lease = found.kvs()[0].lease();
    raw.lease_revoke(lease).await.unwrap();
    servers::until(&registry, 1).await;
    assert_ne!(raw.get(key.as_str(), None).await.unwrap().kvs()[0].lease(), lease);
    held.deregister().await.unwrap();
    assert_eq!(raw.get(key, None).await.unwrap().count(), 0, "nothing is left of it");
}

#[tokio::test]
async fn a_watch_outlives_a_compaction() {
    let Some(url) = url("compaction") else { return };
    let registry = open(&url).await;
    let mut watch = registry.watch(&servers::kit()).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), []);
    let (hosts, prefix) = url.trim_start_matches("etcd://").split_once('/').unwrap();
    let mut raw = Client::connect(hosts.split(',').collect::<Vec<_>>(), None).await.unwrap();
    for port in 1..=500 {
        let value = format!("{{\"Op\":0,\"Addr\":\"10.0.0.1:{port}\"}}");
        let put = raw.put(format!("{prefix}/kit/one"), value, None).await.unwrap();
        if port == 400 {
            raw.compact(put.header().unwrap().revision(), None).await.unwrap();
        }
    }
    loop {
        let list = watch.next().await.unwrap().unwrap();
        if list[0].address.port == 500 {
            break;
        }
    }
    raw.delete(format!("{prefix}/kit/one"), None).await.unwrap();
    assert_eq!(watch.next().await.unwrap().unwrap(), []);
}
