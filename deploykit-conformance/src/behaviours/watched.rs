//! Watching an app.

use std::time::Duration;

use deploykit_core::Change;
use futures_util::StreamExt;
use tokio::time::timeout;

use crate::test::{Test, name};

pub(super) async fn changes_are_told(t: &Test) {
    t.up(t.web("1", 1)).await.unwrap();
    let mut changes = t.deployer().watch(t.name()).await.unwrap();
    let scale = Change::Scale { app: t.name().clone(), service: name("web"), replicas: 2 };
    t.change(scale).await.unwrap();
    let told = timeout(Duration::from_secs(60), changes.next()).await;
    told.expect("a change is told").expect("a watch does not end").unwrap();
}
