//! State that an agent keeps.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::AppName;
use deploykit_core::{Entry, Expected, Fence, Lease, Result, StateStore};

use super::{Client, Request};

/// A [`StateStore`] that an agent keeps in its state folder. What it has written is on the disk
/// when it returns.
#[derive(Clone, Debug)]
pub struct RemoteState(Client);

impl RemoteState {
    /// The state that the client's agent keeps.
    pub fn new(client: Client) -> Self {
        Self(client)
    }
}

#[async_trait]
impl StateStore for RemoteState {
    async fn apps(&self) -> Result<Vec<AppName>> {
        self.0.call(Request::Apps).await
    }

    async fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        self.0.call(Request::Get { app: app.clone(), key: key.to_owned() }).await
    }

    async fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        self.0.call(Request::Keys { app: app.clone(), prefix: prefix.to_owned() }).await
    }

    async fn put(&self, fence: &Fence, key: &str, value: &str, expected: Expected) -> Result<u64> {
        let (fence, key, value) = (fence.clone(), key.to_owned(), value.to_owned());
        self.0.call(Request::Put { fence, key, value, expected }).await
    }

    async fn delete(&self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        self.0.call(Request::Delete { fence: fence.clone(), key: key.to_owned(), version }).await
    }

    async fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease> {
        self.0.call(Request::Acquire { app: app.clone(), holder: holder.to_owned(), ttl }).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        self.0.call(Request::Renew { lease: lease.clone(), ttl }).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.0.call(Request::Release { lease: lease.clone() }).await
    }
}
