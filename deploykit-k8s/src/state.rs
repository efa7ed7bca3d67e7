//! Revisions and other small values of an app: ConfigMaps, one for each key.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::AppName;
use deploykit_core::{Entry, ErrorKind, Expected, Fence, Lease, Result, StateStore};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;

use crate::cluster::{Cluster, lost_race};
use crate::error::error;
use crate::labels;
use crate::lock::number;
use crate::objects::VALUE;
use crate::secrets;

/// What the label of the role says of these ConfigMaps.
const STATE: &str = "state";
/// Annotation: the key.
const KEY: &str = "deploykit.dev/key";

#[derive(Clone, Debug)]
pub(crate) struct State(pub(crate) Cluster);

/// The name of the ConfigMap of a key: the key itself where that can be part of a name.
fn name(app: &AppName, key: &str) -> String {
    let dotted = key.replace('/', ".");
    let name = format!("deploykit.{app}.{dotted}");
    match crate::names::is_dns1123_subdomain(&name) && !key.contains('.') {
        true => name,
        false => format!("deploykit.{app}.key-{}", labels::hex(key.as_bytes())),
    }
}

fn selector(app: &AppName) -> String {
    format!("{}={STATE},{}={app}", labels::ROLE, labels::APP)
}

fn conflict(app: &AppName, key: &str) -> deploykit_core::Error {
    let message = "something else was written there meanwhile";
    error(ErrorKind::Conflict, "write the state of the app", message)
        .with("app", app)
        .with("key", key)
}

impl State {
    async fn metadata(&self, selector: &str) -> Result<Vec<PartialObjectMeta<ConfigMap>>> {
        let api = self.0.api::<ConfigMap>();
        let params = ListParams::default().labels(selector);
        let list = self.0.again("list the state", || api.list_metadata(&params)).await?;
        Ok(list.items)
    }
}

#[async_trait]
impl StateStore for State {
    async fn apps(&self) -> Result<Vec<AppName>> {
        let found = self.metadata(&format!("{}={STATE}", labels::ROLE)).await?;
        let apps = found.iter().filter_map(|map| map.labels().get(labels::APP));
        let mut apps: Vec<AppName> =
            apps.filter_map(|app| AppName::new(app.clone()).ok()).collect();
        apps.sort();
        apps.dedup();
        Ok(apps)
    }

    async fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        let found = self.0.get::<ConfigMap>("read the state", &name(app, key)).await?;
        let Some(mut map) = found else { return Ok(None) };
        let version = number(map.metadata.resource_version.as_deref())?;
        let value = map.data.as_mut().and_then(|data| data.remove(VALUE)).unwrap_or_default();
        Ok(Some(Entry { key: key.to_owned(), value, version }))
    }

    async fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        let found = self.metadata(&selector(app)).await?;
        let keys = found.iter().filter_map(|map| map.annotations().get(KEY));
        let mut keys: Vec<String> = keys.filter(|key| key.starts_with(prefix)).cloned().collect();
        keys.sort();
        Ok(keys)
    }

    async fn put(&self, fence: &Fence, key: &str, value: &str, expected: Expected) -> Result<u64> {
        self.0.check(fence).await?;
        let app = &fence.app;
        let mut labels = labels::of_app(app);
        labels.insert(labels::ROLE.into(), STATE.into());
        let mut map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(name(app, key)),
                labels: Some(labels),
                annotations: Some(BTreeMap::from([(KEY.into(), key.to_owned())])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(VALUE.into(), value.to_owned())])),
            ..ConfigMap::default()
        };
        let api = self.0.api::<ConfigMap>();
        let params = PostParams { field_manager: Some(labels::MANAGER.into()), dry_run: false };
        let operation = "write the state of the app";
        let written = match expected {
            Expected::Absent => self.0.once(operation, || api.create(&params, &map)).await,
            Expected::Version(version) => {
                map.metadata.resource_version = Some(version.to_string());
                let name = name(app, key);
                self.0.once(operation, || api.replace(&name, &params, &map)).await
            }
        };
        match written {
            Ok(map) => number(map.metadata.resource_version.as_deref()),
            Err(error) if lost_race(&error) || error.kind() == ErrorKind::NotFound => {
                Err(conflict(app, key))
            }
            Err(error) => Err(error),
        }
    }

    async fn delete(&self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        self.0.check(fence).await?;
        let api = self.0.api::<ConfigMap>();
        let version = Some(version.to_string());
        let params = DeleteParams::default()
            .preconditions(Preconditions { resource_version: version, uid: None });
        let name = name(&fence.app, key);
        match self.0.again("delete from the state", || api.delete(&name, &params)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) if error.kind() == ErrorKind::Conflict => Err(conflict(&fence.app, key)),
            done => done.map(drop),
        }
    }

    async fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease> {
        self.0.ahead().acquire(app, holder, ttl).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        self.0.ahead().renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let app = &lease.fence.app;
        let mut nothing_left = self.metadata(&selector(app)).await?.is_empty();
        if nothing_left {
            let api = self.0.api::<Secret>();
            let params = ListParams::default().labels(&secrets::selector(app)).limit(1);
            let left = self.0.again("list the secrets", || api.list_metadata(&params)).await?;
            nothing_left = left.items.is_empty();
        }
        if nothing_left && self.0.check(&lease.fence).await.is_ok() {
            secrets::forget(&self.0, app).await?;
        }
        self.0.release(lease, nothing_left).await
    }
}
