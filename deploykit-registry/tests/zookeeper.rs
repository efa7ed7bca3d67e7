//! The contracts of registries and coordinators, and faults, on a real ZooKeeper.
#![cfg(feature = "zookeeper")]
#![allow(clippy::unwrap_used)]

mod servers;

use deploykit_conformance::contract;
use deploykit_core::ServiceRegistry;
use deploykit_registry::{RegistryConfig, ZooKeeper};

fn url(test: &str) -> Option<String> {
    let hosts = servers::hosts("DEPLOYKIT_TEST_ZOOKEEPER", test)?;
    Some(format!("zk://{hosts}/{}", servers::unique(test)))
}

async fn open(url: &str) -> ZooKeeper {
    ZooKeeper::open(RegistryConfig::from_url(url).unwrap()).await.unwrap()
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
    servers::vanishes_with_its_process(&open(&url).await, &url).await;
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
