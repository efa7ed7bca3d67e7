//! The contracts of stores, registries and coordinators, kept by those in memory.
#![allow(clippy::unwrap_used)]

use deploykit_conformance::contract;
use deploykit_core::memory;
use deploykit_core::model::{AppName, ServiceName};

#[tokio::test(start_paused = true)]
async fn state() {
    contract::state(&memory::State::default(), &AppName::new("kit").unwrap()).await;
}

#[tokio::test(start_paused = true)]
async fn secrets() {
    let app = AppName::new("kit").unwrap();
    contract::secrets(&memory::Secrets::default(), &app, true).await;
}

#[tokio::test(start_paused = true)]
async fn registry() {
    let service = ServiceName::new("kit").unwrap();
    contract::registry(&memory::Registry::default(), &service).await;
}

#[tokio::test(start_paused = true)]
async fn coordination() {
    contract::coordination(&memory::Coordination::default(), "kit").await;
}
