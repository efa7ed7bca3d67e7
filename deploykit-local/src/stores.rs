//! State and secrets, kept by the supervisor.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_agent::wire::SecretText;
use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{Entry, Expected, Fence, Lease, Result, SecretStore, SecretValue, StateStore};

use crate::protocol::Request;
use crate::runtime::Local;

#[async_trait]
impl StateStore for Local {
    async fn apps(&self) -> Result<Vec<AppName>> {
        self.client.call(Request::Apps).await
    }

    async fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        self.client.call(Request::Get { app: app.clone(), key: key.to_owned() }).await
    }

    async fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        self.client.call(Request::Keys { app: app.clone(), prefix: prefix.to_owned() }).await
    }

    async fn put(&self, fence: &Fence, key: &str, value: &str, expected: Expected) -> Result<u64> {
        let (fence, key, value) = (fence.clone(), key.to_owned(), value.to_owned());
        self.client.call(Request::Put { fence, key, value, expected }).await
    }

    async fn delete(&self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        self.client
            .call(Request::Delete { fence: fence.clone(), key: key.to_owned(), version })
            .await
    }

    async fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease> {
        self.client
            .call(Request::Acquire { app: app.clone(), holder: holder.to_owned(), ttl })
            .await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        self.client.call(Request::Renew { lease: lease.clone(), ttl }).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.client.call(Request::Release { lease: lease.clone() }).await
    }
}

impl Local {
    async fn put_secret(
        &self,
        app: &AppName,
        name: &SecretName,
        value: &SecretValue,
        only_first: bool,
    ) -> Result<u64> {
        let (app, name, value) = (app.clone(), name.clone(), SecretText::from(value));
        self.client.call(Request::PutSecret { app, name, value, only_first }).await
    }
}

#[async_trait]
impl SecretStore for Local {
    async fn put(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.put_secret(app, name, &value, false).await
    }

    async fn ensure(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.put_secret(app, name, &value, true).await
    }

    async fn get(&self, app: &AppName, name: &SecretName, version: u64) -> Result<SecretValue> {
        let value: SecretText = self
            .client
            .call(Request::GetSecret { app: app.clone(), name: name.clone(), version })
            .await?;
        Ok(value.value())
    }

    async fn versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>> {
        self.client.call(Request::SecretVersions { app: app.clone(), name: name.clone() }).await
    }

    async fn list(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        self.client.call(Request::ListSecrets { app: app.clone() }).await
    }

    async fn delete(&self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()> {
        let (app, name, versions) = (app.clone(), name.clone(), versions.to_vec());
        self.client.call(Request::DeleteSecrets { app, name, versions }).await
    }
}
