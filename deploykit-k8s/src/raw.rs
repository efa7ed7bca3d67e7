//! Which kinds of raw objects an app has, kept with its state: what is of kinds that nobody knows
//! beforehand is found again by that.

use std::collections::{BTreeMap, BTreeSet};

use deploykit_core::model::AppName;
use deploykit_core::{ErrorKind, Expected, Fence, Result, SpecHash, StateStore};
use futures_util::future::try_join_all;
use kube::ResourceExt;
use kube::api::{DynamicObject, ListParams};
use kube::core::discovery::Scope;
use kube::core::{ApiResource, GroupVersionKind, PartialObjectMeta};
use kube::discovery::{self, ApiCapabilities};
use serde::{Deserialize, Serialize};

use crate::cluster::Cluster;
use crate::error::error;
use crate::labels;
use crate::objects::Manifest;
use crate::state::State;

/// The key of the inventory.
const KEY: &str = "raw";

/// A kind of objects, as the API server names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Kind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    /// Whether its objects are of no namespace.
    pub(crate) wide: bool,
}

impl Kind {
    fn new((resource, capabilities): (ApiResource, ApiCapabilities)) -> Self {
        let ApiResource { group, version, kind, plural, .. } = resource;
        Self { group, version, kind, plural, wide: capabilities.scope == Scope::Cluster }
    }

    /// What the API server knows of a kind; nothing where it does not know it.
    pub(crate) async fn find(cluster: &Cluster, kind: &GroupVersionKind) -> Result<Option<Self>> {
        let find = || async {
            match discovery::pinned_kind(&cluster.client, kind).await {
                Ok(found) => Ok(Some(Self::new(found))),
                Err(error) => unknown(error),
            }
        };
        cluster.again("look for a kind", find).await
    }

    /// Like [`Kind::find`], in the version that the API server recommends.
    async fn find_any(cluster: &Cluster, group: &str, kind: &str) -> Result<Option<Self>> {
        let find = || async {
            match discovery::group(&cluster.client, group).await {
                Ok(found) => Ok(found.recommended_kind(kind).map(Self::new)),
                Err(error) => unknown(error),
            }
        };
        cluster.again("look for a kind", find).await
    }

    /// Whether a resource is of the kind, in whichever version.
    pub(crate) fn is_of(&self, resource: &ApiResource) -> bool {
        self.group == resource.group && self.kind == resource.kind
    }

    /// Whether a resource is of the kind in this version.
    pub(crate) fn is(&self, resource: &ApiResource) -> bool {
        self.is_of(resource) && self.version == resource.version
    }

    pub(crate) fn resource(&self) -> ApiResource {
        let gvk = GroupVersionKind::gvk(&self.group, &self.version, &self.kind);
        ApiResource::from_gvk_with_plural(&gvk, &self.plural)
    }

    /// A manifest of the kind with what only the API server knows of it.
    pub(crate) fn resolve(&self, cluster: &Cluster, mut manifest: Manifest) -> Manifest {
        manifest.resource = self.resource();
        manifest.wide = self.wide;
        if self.wide {
            let namespace = cluster.namespace.as_str().into();
            manifest.value["metadata"]["labels"][labels::NAMESPACE] = namespace;
        }
        manifest
    }

    /// The raw objects of an app of that kind.
    async fn list(&self, cluster: &Cluster, app: &AppName) -> Result<Vec<Found>> {
        let mut selector = format!("{}={},{}={app}", labels::ROLE, labels::MANIFEST, labels::APP);
        if self.wide {
            selector = format!("{selector},{}={}", labels::NAMESPACE, cluster.namespace);
        }
        let params = ListParams::default().labels(&selector);
        let mut kind = self.clone();
        let mut listed = cluster.list_metadata_of(&kind.resource(), kind.wide, &params).await;
        if matches!(&listed, Err(error) if error.kind() == ErrorKind::NotFound) {
            // The version, or the whole kind, is not there any more.
            let found = Self::find_any(cluster, &self.group, &self.kind).await?;
            let Some(found) = found else { return Ok(Vec::new()) };
            kind = found;
            listed = cluster.list_metadata_of(&kind.resource(), kind.wide, &params).await;
        }
        let found = |metadata| Found { kind: kind.clone(), metadata };
        Ok(listed?.into_iter().map(found).collect())
    }
}

/// No kind, where that is what the answer means.
fn unknown(error: kube::Error) -> kube::Result<Option<Kind>> {
    match error {
        kube::Error::Discovery(_) => Ok(None),
        kube::Error::Api(status) if status.code == 404 => Ok(None),
        other => Err(other),
    }
}

/// A raw object that is there.
pub(crate) struct Found {
    pub(crate) kind: Kind,
    pub(crate) metadata: PartialObjectMeta<DynamicObject>,
}

/// The raw objects of an app that are there.
pub(crate) async fn list(
    cluster: &Cluster,
    app: &AppName,
    kinds: &BTreeSet<Kind>,
) -> Result<Vec<Found>> {
    let lists = try_join_all(kinds.iter().map(|kind| kind.list(cluster, app))).await?;
    Ok(lists.into_iter().flatten().collect())
}

/// The hashes of the raw objects of an app that are there, by their names.
pub(crate) async fn observe(
    cluster: &Cluster,
    app: &AppName,
) -> Result<BTreeMap<String, SpecHash>> {
    let inventory = Inventory::read(&State(cluster.clone()), app).await?;
    let mut seen = BTreeMap::new();
    for Found { kind, metadata } in list(cluster, app, &inventory.kinds).await? {
        let mut name = metadata.labels().get(labels::RAW).cloned().unwrap_or_default();
        if seen.contains_key(&name) {
            // The name stands for another object now.
            name = format!("{name} ({} {})", kind.kind, metadata.name_any());
        }
        let hash = metadata.annotations().get(labels::HASH).cloned().unwrap_or_default();
        seen.insert(name, SpecHash::from_text(hash));
    }
    Ok(seen)
}

/// The kinds of which an app has or had raw objects.
pub(crate) struct Inventory {
    pub(crate) kinds: BTreeSet<Kind>,
    version: Option<u64>,
}

impl Inventory {
    pub(crate) async fn read(state: &State, app: &AppName) -> Result<Self> {
        let Some(entry) = state.get(app, KEY).await? else {
            return Ok(Self { kinds: BTreeSet::new(), version: None });
        };
        let kinds = serde_json::from_str(&entry.value).map_err(|cause| {
            let message = "the kinds of the app's raw objects cannot be read";
            error(ErrorKind::Corrupt, "read the state of the app", message)
                .with("app", app)
                .because(cause)
        })?;
        Ok(Self { kinds, version: Some(entry.version) })
    }

    /// Keeps these kinds, before anything is of them that is not of the former.
    pub(crate) async fn keep(
        &mut self,
        state: &State,
        fence: &Fence,
        kinds: BTreeSet<Kind>,
    ) -> Result<()> {
        match self.version {
            _ if kinds == self.kinds => {}
            Some(version) if kinds.is_empty() => {
                state.delete(fence, KEY, version).await?;
                self.version = None;
            }
            version => {
                let value = serde_json::to_string(&kinds).map_err(|cause| {
                    let message = "the kinds of the app's raw objects cannot be written";
                    error(ErrorKind::Failed, "write the state of the app", message).because(cause)
                })?;
                let expected = version.map_or(Expected::Absent, Expected::Version);
                self.version = Some(state.put(fence, KEY, &value, expected).await?);
            }
        }
        self.kinds = kinds;
        Ok(())
    }

    /// A manifest with what only the API server knows of its kind; nothing where that is not known.
    pub(crate) fn resolve(&self, cluster: &Cluster, manifest: Manifest) -> Option<Manifest> {
        let kind = self.kinds.iter().find(|kind| kind.is(&manifest.resource))?;
        Some(kind.resolve(cluster, manifest))
    }
}
