//! Secrets that an agent keeps and cannot read.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{Error, ErrorKind, Result, SecretStore, SecretValue};
use tokio::sync::OnceCell;

use super::{Client, Request, SealedVersions};
use crate::error::BACKEND;
use crate::seal::Key;
use crate::wire::SecretText;

/// How often a version is numbered anew because somebody else has taken the number.
const TRIES: usize = 20;

/// A [`SecretStore`] that an agent keeps in its state folder. Values are sealed before they are
/// sent, with a key that stays with the deployer: `ID.key` in a folder of keys, where the id is the
/// agent's.
#[derive(Clone, Debug)]
pub struct RemoteSecrets {
    client: Client,
    keys: PathBuf,
    key: Arc<OnceCell<Key>>,
}

impl RemoteSecrets {
    /// The secrets that the client's agent keeps, sealed with its key in the folder `keys`.
    pub fn new(client: Client, keys: impl Into<PathBuf>) -> Self {
        Self { client, keys: keys.into(), key: Arc::default() }
    }

    async fn look(&self, app: &AppName, name: &SecretName) -> Result<SealedVersions> {
        self.client.call(Request::SecretVersions { app: app.clone(), name: name.clone() }).await
    }

    async fn key(&self, found: &SealedVersions) -> Result<&Key> {
        let open = async || Key::open(&self.keys, &found.key, !found.key_in_use);
        self.key.get_or_try_init(open).await
    }

    /// Adds a version; where another came in between, `Conflict`.
    async fn add(
        &self,
        app: &AppName,
        name: &SecretName,
        value: &SecretValue,
        found: &SealedVersions,
    ) -> Result<u64> {
        let version = found.last + 1;
        let sealed = self.key(found).await?.seal(app, name, version, value)?;
        let sealed = SecretText::from(&SecretValue::new(sealed));
        let (app, name) = (app.clone(), name.clone());
        self.client.call::<()>(Request::PutSealed { app, name, version, sealed }).await?;
        Ok(version)
    }

    async fn put_where(
        &self,
        app: &AppName,
        name: &SecretName,
        value: &SecretValue,
        only_first: bool,
    ) -> Result<u64> {
        for _ in 0..TRIES {
            let found = self.look(app, name).await?;
            if let Some(newest) = found.versions.last().filter(|_| only_first) {
                return Ok(*newest);
            }
            match self.add(app, name, value, &found).await {
                Err(e) if e.kind() == ErrorKind::Conflict => {}
                added => return added,
            }
        }
        let message = format!("others have set {name} {TRIES} times meanwhile; try again");
        Err(Error::new(ErrorKind::Conflict, "store a secret", message).on(BACKEND).with("app", app))
    }
}

#[async_trait]
impl SecretStore for RemoteSecrets {
    async fn put(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.put_where(app, name, &value, false).await
    }

    async fn ensure(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.put_where(app, name, &value, true).await
    }

    async fn get(&self, app: &AppName, name: &SecretName, version: u64) -> Result<SecretValue> {
        let request = Request::GetSealed { app: app.clone(), name: name.clone(), version };
        let sealed: SecretText = self.client.call(request).await?;
        let found = self.look(app, name).await?;
        self.key(&found).await?.open_sealed(app, name, version, sealed.value().expose())
    }

    async fn versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>> {
        Ok(self.look(app, name).await?.versions)
    }

    async fn list(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        self.client.call(Request::ListSecrets { app: app.clone() }).await
    }

    async fn delete(&self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()> {
        let (app, name, versions) = (app.clone(), name.clone(), versions.to_vec());
        self.client.call(Request::DeleteSecrets { app, name, versions }).await
    }
}
