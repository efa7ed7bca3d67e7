//! An app as the objects of Kubernetes: pure functions, so that what would be applied can be
//! looked at without a cluster.

mod account;
mod container;
mod endpoint;
mod isolation;
mod job;
mod pod;
mod raw;
mod route;
mod volume;
mod workload;

use std::collections::BTreeMap;

use deploykit_core::model::{ConfigName, ResolvedImage, SecretName, ServiceName};
use deploykit_core::{Error, ResolvedApp, Result, SpecHash, Template};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::ApiResource;
use serde::Serialize;

use crate::config::K8sConfig;
use crate::labels;

use account::account;
pub(crate) use endpoint::{HEADLESS, is_replaced};
pub(crate) use job::{is_scheduled, job, schedule};
pub(crate) use pod::{NOBODY, numbers};
pub(crate) use raw::{GroupKind, defines, raw, raw_problems};
pub(crate) use route::certificate_object;
pub(crate) use volume::claim;
pub(crate) use workload::monitor;

/// One object as it is applied.
#[derive(Clone, Debug)]
pub(crate) struct Manifest {
    pub(crate) resource: ApiResource,
    /// Whether it is of no namespace.
    pub(crate) wide: bool,
    pub(crate) name: String,
    pub(crate) value: serde_json::Value,
}

impl Manifest {
    fn of<K>(object: &K) -> Self
    where
        K: kube::Resource<DynamicType = ()> + Serialize,
    {
        Self {
            resource: ApiResource::erase::<K>(&()),
            wide: false,
            name: object.meta().name.clone().unwrap_or_default(),
            // Typed objects of the API are plain data.
            value: serde_json::to_value(object).unwrap_or_default(),
        }
    }
}

/// What the objects of one service or job are made from.
pub(crate) struct Part<'a> {
    pub(crate) config: &'a K8sConfig,
    pub(crate) target: &'a ResolvedApp,
    pub(crate) name: &'a ServiceName,
    pub(crate) template: Template,
    /// The image that the nodes pull: that of the template, or one made of it.
    pub(crate) image: ResolvedImage,
    /// The hash that instances carry: of another version of the hash where those that are there
    /// fit the template by it.
    pub(crate) hash: SpecHash,
    /// The revision that instances carry.
    pub(crate) revision: u64,
    /// The revision that is being applied.
    pub(crate) applied: u64,
    /// The name of the Deployment, where that is what keeps the instances.
    pub(crate) deployment: String,
}

impl<'a> Part<'a> {
    /// A service or job of an app that is new at `revision`.
    pub(crate) fn new(
        config: &'a K8sConfig,
        target: &'a ResolvedApp,
        name: &'a ServiceName,
        revision: u64,
    ) -> Result<Self> {
        let template = target.template(name).ok_or_else(|| {
            let message = "the revision has no such service or job, or lacks its image or secrets";
            Error::new(deploykit_core::ErrorKind::Invalid, "make the objects", message)
                .with("service", name)
        })?;
        let hash = SpecHash::of(&template);
        let image = template.image.clone();
        let deployment = labels::service_object(&target.app.name, name);
        Ok(Self {
            config,
            target,
            name,
            template,
            image,
            hash,
            revision,
            applied: revision,
            deployment,
        })
    }

    pub(crate) fn object_name(&self) -> String {
        labels::service_object(&self.target.app.name, self.name)
    }

    fn selector(&self) -> BTreeMap<String, String> {
        labels::selector(&self.target.app.name, self.name)
    }

    /// The metadata of an object of this service.
    fn metadata(&self, name: String) -> ObjectMeta {
        let mut labels = labels::of_service(&self.target.app.name, self.name);
        labels.insert(labels::REVISION.to_owned(), self.applied.to_string());
        ObjectMeta { name: Some(name), labels: Some(labels), ..ObjectMeta::default() }
    }
}

/// The objects of a service, in the order in which they are applied.
pub(crate) fn service(part: &Part<'_>) -> Result<Vec<Manifest>> {
    let mut manifests = beneath(part);
    manifests.extend(isolation::policy(part));
    manifests.extend(endpoint::service(part));
    manifests.extend(workload::workload(part)?);
    // Last, so that it leads to somewhere.
    manifests.extend(route::ingress(part));
    Ok(manifests)
}

/// The name of the ConfigMap of a config's content: another content is another object.
pub(crate) fn config_object(app: &ResolvedApp, name: &ConfigName, content: &str) -> String {
    format!("{}.{name}.{}", app.app.name, &labels::hex(content.as_bytes())[..12])
}

/// The name of the Secret of one version of a secret.
pub(crate) fn secret_object(
    app: &deploykit_core::model::AppName,
    name: &SecretName,
    version: u64,
) -> String {
    format!("{app}.{name}.v{version}")
}

/// The key of the one entry of such a ConfigMap or Secret.
pub(crate) const VALUE: &str = "value";

/// What pods need before they are there: the configs that they mount, and their account.
pub(crate) fn beneath(part: &Part<'_>) -> Vec<Manifest> {
    let mut manifests = configs(part);
    manifests.extend(account(part));
    manifests
}

/// The immutable ConfigMaps of the configs that are mounted.
fn configs(part: &Part<'_>) -> Vec<Manifest> {
    let app = &part.target.app.name;
    let of = |(name, content): (&ConfigName, &String)| {
        let mut labels = labels::of_app(app);
        labels.insert(labels::CONFIG.to_owned(), name.to_string());
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some(config_object(part.target, name, content)),
                labels: Some(labels),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(VALUE.to_owned(), content.clone())])),
            immutable: Some(true),
            ..ConfigMap::default()
        };
        Manifest::of(&map)
    };
    part.template.configs.iter().map(of).collect()
}
