//! Secrets: immutable Secrets, one for each version.

use std::collections::BTreeMap;

use async_trait::async_trait;
use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{ErrorKind, Result, SecretStore, SecretValue};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{ListParams, PostParams};
use kube::core::ApiResource;

use crate::cluster::{Cluster, lost_race};
use crate::error::error;
use crate::labels;
use crate::objects::{VALUE, secret_object};

/// How often a write that somebody else's has come before is made again.
const RACES: u32 = 10;

#[derive(Clone, Debug)]
pub(crate) struct Secrets(pub(crate) Cluster);

/// The labels of all versions of an app's secrets.
pub(crate) fn selector(app: &AppName) -> String {
    format!("{},{}={app}", labels::SECRET, labels::APP)
}

/// The ConfigMap that remembers the highest versions ever given out, so that a number never comes
/// twice.
fn counter(app: &AppName) -> String {
    format!("deploykit.{app}.secret-versions")
}

/// Forgets the versions that were given out, when nothing of the app is left.
pub(crate) async fn forget(cluster: &Cluster, app: &AppName) -> Result<()> {
    cluster.delete(&ApiResource::erase::<ConfigMap>(&()), &counter(app), None).await
}

impl Secrets {
    /// Every version of the app's secrets, or of one of them.
    async fn found(
        &self,
        app: &AppName,
        name: Option<&SecretName>,
    ) -> Result<BTreeMap<SecretName, Vec<u64>>> {
        let api = self.0.api::<Secret>();
        let params = match name {
            None => ListParams::default().labels(&selector(app)),
            Some(name) => ListParams::default().labels(&format!(
                "{}={name},{}={app}",
                labels::SECRET,
                labels::APP
            )),
        };
        // Names and versions alone: the values stay where they are.
        let list = self.0.again("list the secrets", || api.list_metadata(&params)).await?;
        let mut found: BTreeMap<SecretName, Vec<u64>> = BTreeMap::new();
        for object in list.items {
            let name = object.labels().get(labels::SECRET).cloned().unwrap_or_default();
            let version = object.annotations().get(labels::VERSION).and_then(|v| v.parse().ok());
            if let (Ok(name), Some(version)) = (SecretName::new(name), version) {
                found.entry(name).or_default().push(version);
            }
        }
        found.values_mut().for_each(|versions| versions.sort_unstable());
        Ok(found)
    }

    async fn count(&self, app: &AppName) -> Result<Option<ConfigMap>> {
        self.0.get::<ConfigMap>("read the versions given out", &counter(app)).await
    }

    /// The highest version ever given out.
    async fn highest(&self, app: &AppName, name: &SecretName) -> Result<u64> {
        let there = self.versions(app, name).await?.last().copied().unwrap_or(0);
        let counted = self.count(app).await?.and_then(|map| map.data);
        let counted = counted.and_then(|data| data.get(name.as_str())?.parse().ok()).unwrap_or(0);
        Ok(there.max(counted))
    }

    /// Notes that versions up to `version` have been given out.
    async fn remember(&self, app: &AppName, name: &SecretName, version: u64) -> Result<()> {
        let api = self.0.api::<ConfigMap>();
        let params = PostParams { field_manager: Some(labels::MANAGER.into()), dry_run: false };
        let operation = "note the versions given out";
        let counter = counter(app);
        let mut races = 0;
        loop {
            let there = self.count(app).await?;
            let is_new = there.is_none();
            let mut map = there.unwrap_or_else(|| ConfigMap {
                metadata: ObjectMeta {
                    name: Some(counter.clone()),
                    labels: Some(labels::of_app(app)),
                    ..ObjectMeta::default()
                },
                ..ConfigMap::default()
            });
            let data = map.data.get_or_insert_default();
            let counted = data.get(name.as_str()).and_then(|v| v.parse().ok()).unwrap_or(0);
            if counted >= version {
                return Ok(());
            }
            data.insert(name.to_string(), version.to_string());
            let written = match is_new {
                true => self.0.once(operation, || api.create(&params, &map)).await,
                false => self.0.once(operation, || api.replace(&counter, &params, &map)).await,
            };
            match written {
                Err(error) if lost_race(&error) && races < RACES => races += 1,
                done => return done.map(drop),
            }
        }
    }
}

#[async_trait]
impl SecretStore for Secrets {
    async fn put(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        let mut version = self.highest(app, name).await? + 1;
        let mut labels = labels::of_app(app);
        labels.insert(labels::SECRET.into(), name.to_string());
        let api = self.0.api::<Secret>();
        let params = PostParams { field_manager: Some(labels::MANAGER.into()), dry_run: false };
        let mut races = 0;
        loop {
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(secret_object(app, name, version)),
                    labels: Some(labels.clone()),
                    annotations: Some(BTreeMap::from([(
                        labels::VERSION.into(),
                        version.to_string(),
                    )])),
                    ..ObjectMeta::default()
                },
                data: Some(BTreeMap::from([(VALUE.into(), ByteString(value.expose().to_vec()))])),
                immutable: Some(true),
                type_: Some("Opaque".into()),
                ..Secret::default()
            };
            match self.0.once("write the secret", || api.create(&params, &secret)).await {
                Ok(_) => return Ok(version),
                Err(error) if lost_race(&error) && races < RACES => {
                    races += 1;
                    version = version.max(self.highest(app, name).await?) + 1;
                }
                Err(error) => return Err(error.with("app", app).with("secret", name)),
            }
        }
    }

    async fn ensure(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        match self.versions(app, name).await?.last() {
            Some(newest) => Ok(*newest),
            None => self.put(app, name, value).await,
        }
    }

    async fn get(&self, app: &AppName, name: &SecretName, version: u64) -> Result<SecretValue> {
        let object = secret_object(app, name, version);
        let found = self.0.get::<Secret>("read the secret", &object).await?;
        let value = found.and_then(|secret| secret.data?.remove(VALUE));
        value.map(|bytes| SecretValue::new(bytes.0)).ok_or_else(|| {
            let message = format!("there is no version {version}");
            error(ErrorKind::NotFound, "read the secret", message)
                .with("app", app)
                .with("secret", name)
        })
    }

    async fn versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>> {
        Ok(self.found(app, Some(name)).await?.remove(name).unwrap_or_default())
    }

    async fn list(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        let found = self.found(app, None).await?;
        let newest = |(name, versions): (SecretName, Vec<u64>)| Some((name, *versions.last()?));
        Ok(found.into_iter().filter_map(newest).collect())
    }

    async fn delete(&self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()> {
        let there = self.versions(app, name).await?;
        let newest = there.last().filter(|newest| versions.contains(newest));
        if let Some(newest) = newest {
            self.remember(app, name, *newest).await?;
        }
        let resource = ApiResource::erase::<Secret>(&());
        for version in there.iter().filter(|version| versions.contains(version)) {
            self.0.delete(&resource, &secret_object(app, name, *version), None).await?;
        }
        Ok(())
    }
}
