//! The contracts of registries and coordinators, kept on a real etcd.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used)]

mod servers;

use deploykit_conformance::contract;
use deploykit_core::model::ServiceName;
use deploykit_registry::{Etcd, RegistryConfig};

async fn open(test: &str) -> Option<Etcd> {
    let hosts = servers::hosts("DEPLOYKIT_TEST_ETCD", test)?;
    let url = format!("etcd://{hosts}/{}", servers::unique(test));
    Some(Etcd::open(RegistryConfig::from_url(&url).unwrap()).await.unwrap())
}

#[tokio::test]
async fn registry() {
    let Some(etcd) = open("registry").await else { return };
    contract::registry(&etcd, &ServiceName::new("kit").unwrap()).await;
}

#[tokio::test]
async fn coordination() {
    let Some(etcd) = open("coordination").await else { return };
    contract::coordination(&etcd, "kit").await;
}
