//! Applications.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::mount::{Config, Secret, Volume};
use super::name::{AppName, ConfigName, NetworkName, RawName, SecretName, ServiceName, VolumeName};
use super::service::{Job, Service};
use super::workload::{self, Workload};

/// A network of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Whether its members reach nothing outside of it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub internal: bool,
}

/// Objects as one backend knows them, by names of the app's own.
pub type RawObjects = BTreeMap<RawName, serde_json::Map<String, serde_json::Value>>;

/// Several services and jobs that are deployed, updated and rolled back as one.
///
/// Plain data: written by hand, read from YAML or JSON with [`App::from_yaml`], or made with
/// [`App::build`].
///
/// ```
/// use deploykit_core::model::{App, ImageSpec, Port, Service};
/// let app = App::build("blog")
///     .service(Service::build("web", ImageSpec::binary("/usr/bin/web")).port(Port::http(8080).public()))
///     .validate()?;
/// let yaml = "
/// name: blog
/// services:
///   web:
///     image: {binary: /usr/bin/web}
///     ports: [{port: 8080, protocol: http, publish: public}]
/// ";
/// assert_eq!(App::from_yaml(yaml)?, app);
/// # Ok::<(), deploykit_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct App {
    /// Its name: unique within a backend's scope (a folder, an engine, a namespace).
    pub name: AppName,
    /// What runs until it is removed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<ServiceName, Service>,
    /// What runs to an end.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<ServiceName, Job>,
    /// Networks beside the app's own, which every service joins.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<NetworkName, Network>,
    /// Data that outlives instances.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, Volume>,
    /// Secrets that services mount; their values are in the backend's secret store.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretName, Secret>,
    /// Files that services mount.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<ConfigName, Config>,
    /// Objects that the model has no word for, by the name of the backend that they are for, which
    /// alone takes them: on Kubernetes (`k8s`) manifests, without a namespace. They are there
    /// before services are, and go with the app, or when the app names them no more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, RawObjects>,
    /// Whether a service may be reached only by those that name it in `connects_to`. Default no.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// The URL of the registry that services find each other by, as `DEPLOYKIT_REGISTRY` in the
    /// environment of every instance: `etcd://10.0.0.1/shop`. Without a password: apps are kept in
    /// the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// How many revisions are kept. Default 10.
    #[serde(default = "ten")]
    pub keep_revisions: u32,
    /// Labels of the caller's own.
    #[serde(default, skip_serializing_if = "workload::is_default")]
    pub labels: BTreeMap<String, String>,
}

fn ten() -> u32 {
    10
}

impl App {
    /// An app with nothing in it.
    pub fn new(name: AppName) -> Self {
        Self {
            name,
            services: BTreeMap::new(),
            jobs: BTreeMap::new(),
            networks: BTreeMap::new(),
            volumes: BTreeMap::new(),
            secrets: BTreeMap::new(),
            configs: BTreeMap::new(),
            raw: BTreeMap::new(),
            isolated: false,
            registry: None,
            keep_revisions: ten(),
            labels: BTreeMap::new(),
        }
    }

    /// Every service and job with its name: services first, each in the order of their names.
    pub fn workloads(&self) -> impl Iterator<Item = (&ServiceName, Workload<'_>)> {
        let services = self.services.iter().map(|(name, s)| (name, s.workload()));
        services.chain(self.jobs.iter().map(|(name, j)| (name, j.workload())))
    }

    /// The service or job of that name.
    pub fn workload(&self, name: &ServiceName) -> Option<Workload<'_>> {
        let service = self.services.get(name).map(Service::workload);
        service.or_else(|| self.jobs.get(name).map(Job::workload))
    }

    /// The [JSON Schema](https://json-schema.org/draft/2020-12) of an app's file.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).to_value()
    }
}
