//! Apps whose every reference is fixed, and the instances that they ask for.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::*;

/// An app with everything fixed that needs looking up: image digests, secret versions.
///
/// Made by [`Deployer::prepare`](crate::Deployer::prepare); what plans and revisions hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedApp {
    /// The app as it was written, without what the backend does not honour and may be omitted.
    pub app: App,
    /// The image of each service and job.
    pub images: BTreeMap<ServiceName, ResolvedImage>,
    /// The version of each secret that is mounted, or is the certificate of a route.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretName, u64>,
    /// How often each service has been restarted by request.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub restarts: BTreeMap<ServiceName, u64>,
}

/// Everything that makes an instance what it is: two instances of equal templates are
/// interchangeable. It holds no secret's value and no allocated address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Template {
    /// What it runs.
    pub image: ResolvedImage,
    /// Replaces the image's entry point.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The app's own environment variables, and the URL of its registry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<PathBuf>,
    /// The user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What it may use.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// Its ports. How they are published is the endpoint's matter and no part of the hash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Port>,
    /// Its probes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub probes: Probes,
    /// The files that it finds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// The version of each secret that it mounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<SecretName, u64>,
    /// The content of each config that it mounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<ConfigName, String>,
    /// The scope of each volume that it mounts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<VolumeName, VolumeScope>,
    /// The services whose address it is told, with their first declared port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<ServiceName, u16>,
    /// Where the app is isolated, the services that it may reach, and no others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reaches: Option<BTreeSet<ServiceName>>,
    /// The networks that it joins.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub networks: BTreeSet<NetworkName>,
    /// Where it may run.
    #[serde(default, skip_serializing_if = "is_default")]
    pub placement: Placement,
    /// The account of its own that it runs under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// The signal that asks it to end.
    #[serde(default, skip_serializing_if = "is_default")]
    pub stop_signal: Signal,
    /// How long it may take to end before it is killed.
    pub stop_grace: Duration,
    /// When it is started again. Jobs are never started again by the backend.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restart: RestartPolicy,
    /// The caller's labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How often its service was restarted by request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub restarted: u64,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The stable address of a service and how it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// The service.
    pub service: ServiceName,
    /// Its ports.
    pub ports: Vec<Port>,
    /// What its name leads to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mode: EndpointMode,
    /// The version of each secret that is the certificate of one of its routes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub certificates: BTreeMap<SecretName, u64>,
}

impl EndpointSpec {
    /// An endpoint of these ports, with no certificate.
    pub fn new(service: ServiceName, ports: Vec<Port>) -> Self {
        Self { service, ports, mode: EndpointMode::Vip, certificates: BTreeMap::new() }
    }
}

/// A job that runs by itself, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleSpec {
    /// The job.
    pub job: ServiceName,
    /// When it runs.
    pub schedule: Schedule,
    /// What runs then.
    pub template: Template,
    /// How often a run is tried again after a failure.
    pub retries: u32,
    /// How long a run may take.
    pub timeout: Option<Duration>,
}

impl ResolvedApp {
    /// What an instance of that service or job is; nothing where the app has none of that name.
    pub fn template(&self, name: &ServiceName) -> Option<Template> {
        let workload = self.app.workload(name)?;
        let service = self.app.services.get(name);
        let mut secrets = BTreeMap::new();
        let mut configs = BTreeMap::new();
        let mut volumes = BTreeMap::new();
        for mount in workload.mounts {
            match mount {
                Mount::Secret(m) => {
                    secrets.insert(m.name.clone(), *self.secrets.get(&m.name)?);
                }
                Mount::Config(m) => {
                    configs.insert(m.name.clone(), self.app.configs.get(&m.name)?.content.clone());
                }
                Mount::Volume(m) => {
                    volumes.insert(m.name.clone(), self.app.volumes.get(&m.name)?.scope);
                }
                Mount::Bind(_) | Mount::Tmpfs(_) => {}
            }
        }
        let mut env = workload.env.clone();
        let registry = self.app.registry.clone();
        env.extend(registry.map(|url| (REGISTRY.to_owned(), url)));
        let peers = workload.peers().into_iter().filter_map(|peer| {
            let port = self.app.services.get(peer)?.ports.first()?.port;
            Some((peer.clone(), port))
        });
        Some(Template {
            image: self.images.get(name)?.clone(),
            command: workload.command.to_vec(),
            args: workload.args.to_vec(),
            env,
            workdir: workload.workdir.cloned(),
            user: workload.user.map(str::to_owned),
            resources: *workload.resources,
            ports: service.map(|s| s.ports.clone()).unwrap_or_default(),
            probes: service.map(|s| s.probes.clone()).unwrap_or_default(),
            mounts: workload.mounts.to_vec(),
            secrets,
            configs,
            volumes,
            peers: peers.collect(),
            reaches: self.app.isolated.then(|| workload.connects_to.clone()),
            networks: workload.networks.clone(),
            placement: workload.placement.clone(),
            service_account: workload.service_account,
            stop_signal: workload.stop_signal,
            stop_grace: workload.stop_grace,
            restart: service.map_or(RestartPolicy::Never, |s| s.restart),
            labels: workload.labels.clone(),
            restarted: self.restarts.get(name).copied().unwrap_or(0),
        })
    }

    /// The endpoint of a service; nothing for a job or a service without ports.
    pub fn endpoint(&self, name: &ServiceName) -> Option<EndpointSpec> {
        let service = self.app.services.get(name)?;
        let certificate = |port: &Port| match &port.publish {
            Publish::Route(Route { tls: Some(secret), .. }) => {
                Some((secret.clone(), *self.secrets.get(secret)?))
            }
            _ => None,
        };
        let spec = EndpointSpec {
            service: name.clone(),
            ports: service.ports.clone(),
            mode: service.endpoint_mode,
            certificates: service.ports.iter().filter_map(certificate).collect(),
        };
        (!service.ports.is_empty()).then_some(spec)
    }

    /// The schedule of a job; nothing for one that runs once.
    pub fn schedule(&self, name: &ServiceName) -> Option<ScheduleSpec> {
        let job = self.app.jobs.get(name)?;
        Some(ScheduleSpec {
            job: name.clone(),
            schedule: job.schedule.clone()?,
            template: self.template(name)?,
            retries: job.retries,
            timeout: job.timeout,
        })
    }
}
