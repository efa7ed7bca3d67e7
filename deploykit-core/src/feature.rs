//! The parts of the model that not every backend honours: which an app uses, and what it is
//! without them.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::error::Problem;
use crate::model::text::{Path, instead};
use crate::model::*;

macro_rules! features {
    ($($(#[$doc:meta])* $name:ident = $word:literal;)*) => {
        /// A part of the model that not every backend honours.
        ///
        /// Its word is what a caller allows the omission of:
        ///
        /// ```
        /// use deploykit_core::Feature;
        /// assert_eq!("per_replica_volumes".parse::<Feature>()?, Feature::PerReplicaVolumes);
        /// assert_eq!(Feature::Resources.to_string(), "resources");
        /// # Ok::<(), deploykit_core::UnknownFeature>(())
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[non_exhaustive]
        pub enum Feature {
            $($(#[$doc])* #[serde(rename = $word)] $name,)*
        }

        impl Feature {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its word.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

features! {
    /// `image: {binary: …}`: executables of this machine.
    Executables = "executables";
    /// `image: {reference: …}` and `image: {files: …}`: images, of a registry or made here.
    Images = "images";
    /// `image: {build: …}`: images built from a Dockerfile.
    Dockerfiles = "dockerfiles";
    /// `resources`.
    Resources = "resources";
    /// `user`.
    Users = "users";
    /// `isolated`, and `networks`.
    Isolation = "isolation";
    /// `placement`.
    Placement = "placement";
    /// `service_account`.
    ServiceAccounts = "service_accounts";
    /// Ports that take datagrams.
    Udp = "udp";
    /// `publish: {host_port: …}`.
    HostPorts = "host_ports";
    /// `publish: {route: …}`.
    Routes = "routes";
    /// `endpoint_mode: dnsrr`.
    Headless = "headless";
    /// `replicas: global`.
    Global = "global";
    /// `replicas: {autoscale: …}`.
    Autoscale = "autoscale";
    /// `schedule` of jobs.
    Schedules = "schedules";
    /// `restart` of services other than `always`.
    RestartPolicies = "restart_policies";
    /// Mounts with a `target`, bind mounts and tmpfs mounts.
    MountTargets = "mount_targets";
    /// Volumes of scope `per_replica`.
    PerReplicaVolumes = "per_replica_volumes";
    /// Probes by `exec`.
    ExecProbes = "exec_probes";
    /// Probes by `grpc`.
    GrpcProbes = "grpc_probes";
    /// `update.strategy: blue_green`.
    BlueGreen = "blue_green";
    /// `update.strategy: {canary: …}`.
    Canary = "canary";
    /// `raw`: objects as the backend itself knows them.
    Raw = "raw";
}

/// A word that names no [`Feature`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no feature `{word}` ({fix})")]
pub struct UnknownFeature {
    word: String,
    fix: String,
}

impl FromStr for Feature {
    type Err = UnknownFeature;
    fn from_str(word: &str) -> Result<Self, UnknownFeature> {
        let words = Self::ALL.iter().map(|feature| feature.as_str());
        let found = Self::ALL.iter().copied().find(|feature| feature.as_str() == word);
        found.ok_or_else(|| UnknownFeature { word: word.to_owned(), fix: instead(word, words, "") })
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What to do where a backend does not honour a feature.
enum Without {
    /// It may be omitted by name; then this happens.
    Allowed(&'static str),
    /// The app would not work, or would work on wrong data; this is to be done.
    Never(&'static str),
}

impl Feature {
    fn without(self) -> Without {
        use Without::{Allowed, Never};
        match self {
            Self::Executables => Never("name an image by its reference, or use another backend"),
            Self::Images => Never("name an executable by its path, or use another backend"),
            Self::Dockerfiles => Never(
                "use a Docker engine (on Kubernetes, add registry=HOST:PORT&builder=docker:// to the URL); or build it with `docker build`, push it and name it by its reference",
            ),
            Self::Resources => Allowed("instances run without limits"),
            Self::Users => Allowed("instances run as the backend's own user"),
            Self::Isolation => Allowed("every service reaches every other"),
            Self::Placement => Allowed("instances run anywhere"),
            Self::ServiceAccounts => {
                Allowed("instances have no account of a cluster, and no token")
            }
            Self::Udp => Never("use another protocol, or another backend"),
            Self::HostPorts => Allowed("the backend chooses the public address"),
            Self::Routes => Allowed("the backend chooses the public address, without TLS"),
            Self::Headless => Allowed("its name leads to one address"),
            Self::Global => Allowed("there is one instance"),
            Self::Autoscale => Allowed("there are `min` instances"),
            Self::Schedules => Allowed("the job is left out"),
            Self::RestartPolicies => Allowed("instances are started again however they ended"),
            Self::MountTargets => Never(
                "mount it without a target and read VOLUMES_DIR, SECRETS_DIR or CONFIGS_DIR, or use another backend",
            ),
            Self::PerReplicaVolumes => Never("use `scope: shared`, or another backend"),
            Self::ExecProbes | Self::GrpcProbes => Allowed("the probe is not asked"),
            Self::BlueGreen | Self::Canary => Allowed("the update is a rolling one"),
            Self::Raw => Allowed("the app goes without these objects"),
        }
    }
}

impl Capabilities {
    /// Every part of `app` that this backend, named `backend`, does not honour, but for those
    /// whose omission is `allowed` and that an app can be without.
    ///
    /// With no problem, [`Capabilities::without`] gives what can be deployed.
    pub fn check(&self, app: &App, backend: &str, allowed: &BTreeSet<Feature>) -> Vec<Problem> {
        let mut problems = Vec::new();
        uses(&mut app.clone(), &mut |feature, path| {
            if self.has(feature) {
                return false;
            }
            let fix = match feature.without() {
                Without::Allowed(_) if allowed.contains(&feature) => return false,
                Without::Allowed(then) => format!("remove it, or allow `{feature}`: {then}"),
                Without::Never(instead) => instead.to_owned(),
            };
            let what = format!("the backend {backend} does not support `{feature}`");
            problems.push(Problem::new(path, what, fix));
            false
        });
        for other in app.raw.keys().filter(|name| self.has(Feature::Raw) && *name != backend) {
            let path = Path::default().field("raw").field(other);
            let what = format!("these objects are for {other}, and this is {backend}");
            problems.push(Problem::new(path, what, "leave them out"));
        }
        problems
    }

    /// The app without what this backend does not honour and may be omitted by `allowed`: a
    /// backend is never given what it would have to ignore.
    ///
    /// What then holds instead: no limits, the backend's own user, services that all reach each
    /// other, instances anywhere and under no account, one address for a service, a public address
    /// of the backend's choice for host ports and routes, 1 instance for `global` and `min` for
    /// `autoscale`, no scheduled job, instances that are started again however they ended, no exec
    /// and gRPC probe, a rolling update for `blue_green` and `canary`, no raw objects.
    pub fn without(&self, mut app: App, allowed: &BTreeSet<Feature>) -> App {
        uses(&mut app, &mut |feature, _| {
            let may = matches!(feature.without(), Without::Allowed(_));
            may && !self.has(feature) && allowed.contains(&feature)
        });
        app
    }
}

/// Tells `omit` of each use of each feature, and takes it out of the app where that says so.
fn uses(app: &mut App, omit: &mut dyn FnMut(Feature, Path) -> bool) {
    let top = Path::default();
    if app.isolated && omit(Feature::Isolation, top.field("isolated")) {
        app.isolated = false;
    }
    if !app.networks.is_empty() && omit(Feature::Isolation, top.field("networks")) {
        app.networks.clear();
    }
    let raw = top.field("raw");
    app.raw.retain(|backend, _| !omit(Feature::Raw, raw.field(backend)));
    for (name, service) in &mut app.services {
        service_uses(&top.field("services").field(name), service, omit);
    }
    app.jobs.retain(|name, job| {
        let path = top.field("jobs").field(name);
        let shared = Shared {
            image: &job.image,
            mounts: &job.mounts,
            resources: &mut job.resources,
            user: &mut job.user,
            networks: &mut job.networks,
            placement: &mut job.placement,
            service_account: &mut job.service_account,
        };
        shared.uses(&path, omit);
        job.schedule.is_none() || !omit(Feature::Schedules, path.field("schedule"))
    });
    for (name, volume) in &mut app.volumes {
        let path = top.field("volumes").field(name).field("scope");
        if volume.scope == VolumeScope::PerReplica && omit(Feature::PerReplicaVolumes, path) {
            volume.scope = VolumeScope::Shared;
        }
    }
}

/// What services and jobs have in common and a backend may not honour.
struct Shared<'a> {
    image: &'a ImageSpec,
    mounts: &'a [Mount],
    resources: &'a mut Resources,
    user: &'a mut Option<String>,
    networks: &'a mut BTreeSet<NetworkName>,
    placement: &'a mut Placement,
    service_account: &'a mut Option<ServiceAccount>,
}

impl Shared<'_> {
    fn uses(self, path: &Path, omit: &mut dyn FnMut(Feature, Path) -> bool) {
        let image = path.field("image");
        match self.image {
            ImageSpec::Binary(_) => omit(Feature::Executables, image.field("binary")),
            ImageSpec::Reference(_) => omit(Feature::Images, image.field("reference")),
            ImageSpec::Files(_) => omit(Feature::Images, image.field("files")),
            ImageSpec::Build(_) => omit(Feature::Dockerfiles, image.field("build")),
        };
        for (index, mount) in self.mounts.iter().enumerate() {
            let at = path.field("mounts").index(index);
            match mount {
                Mount::Bind(_) => omit(Feature::MountTargets, at.field("bind")),
                Mount::Tmpfs(_) => omit(Feature::MountTargets, at.field("tmpfs")),
                Mount::Volume(VolumeMount { target: None, .. })
                | Mount::Secret(SecretMount { target: None, .. })
                | Mount::Config(ConfigMount { target: None, .. }) => false,
                Mount::Volume(_) => omit(Feature::MountTargets, at.field("volume").field("target")),
                Mount::Secret(_) => omit(Feature::MountTargets, at.field("secret").field("target")),
                Mount::Config(_) => omit(Feature::MountTargets, at.field("config").field("target")),
            };
        }
        if *self.resources != Resources::default()
            && omit(Feature::Resources, path.field("resources"))
        {
            *self.resources = Resources::default();
        }
        if self.user.is_some() && omit(Feature::Users, path.field("user")) {
            *self.user = None;
        }
        if !self.networks.is_empty() && omit(Feature::Isolation, path.field("networks")) {
            self.networks.clear();
        }
        if *self.placement != Placement::default()
            && omit(Feature::Placement, path.field("placement"))
        {
            *self.placement = Placement::default();
        }
        if self.service_account.is_some()
            && omit(Feature::ServiceAccounts, path.field("service_account"))
        {
            *self.service_account = None;
        }
    }
}

fn service_uses(path: &Path, service: &mut Service, omit: &mut dyn FnMut(Feature, Path) -> bool) {
    let shared = Shared {
        image: &service.image,
        mounts: &service.mounts,
        resources: &mut service.resources,
        user: &mut service.user,
        networks: &mut service.networks,
        placement: &mut service.placement,
        service_account: &mut service.service_account,
    };
    shared.uses(path, omit);
    for (index, port) in service.ports.iter_mut().enumerate() {
        let at = path.field("ports").index(index);
        match port.protocol {
            Protocol::Udp => omit(Feature::Udp, at.field("protocol")),
            Protocol::Http | Protocol::Tcp => false,
        };
        let at = at.field("publish");
        let feature = match &port.publish {
            Publish::Internal | Publish::Public => None,
            Publish::HostPort(_) => Some((Feature::HostPorts, at.field("host_port"))),
            Publish::Route(_) => Some((Feature::Routes, at.field("route"))),
        };
        if feature.is_some_and(|(feature, at)| omit(feature, at)) {
            port.publish = Publish::Public;
        }
    }
    if service.endpoint_mode == EndpointMode::Dnsrr
        && omit(Feature::Headless, path.field("endpoint_mode"))
    {
        service.endpoint_mode = EndpointMode::Vip;
    }
    let at = path.field("replicas");
    match service.replicas {
        Replicas::Fixed(_) => {}
        Replicas::Global => {
            if omit(Feature::Global, at) {
                service.replicas = Replicas::Fixed(1);
            }
        }
        Replicas::Autoscale(scale) => {
            if omit(Feature::Autoscale, at.field("autoscale")) {
                service.replicas = Replicas::Fixed(scale.min);
            }
        }
    }
    if service.restart != RestartPolicy::Always
        && omit(Feature::RestartPolicies, path.field("restart"))
    {
        service.restart = RestartPolicy::Always;
    }
    let Probes { startup, readiness, liveness } = &mut service.probes;
    for (name, probe) in [("startup", startup), ("readiness", readiness), ("liveness", liveness)] {
        let feature = match probe.as_ref().map(|probe| &probe.check) {
            None | Some(Check::Http(_) | Check::Tcp(_)) => continue,
            Some(Check::Exec(_)) => Feature::ExecProbes,
            Some(Check::Grpc(_)) => Feature::GrpcProbes,
        };
        let kind = if feature == Feature::ExecProbes { "exec" } else { "grpc" };
        if omit(feature, path.field("probes").field(name).field("check").field(kind)) {
            *probe = None;
        }
    }
    let at = path.field("update").field("strategy");
    let omitted = match service.update.strategy {
        Strategy::Rolling(_) | Strategy::Recreate => false,
        Strategy::BlueGreen => omit(Feature::BlueGreen, at),
        Strategy::Canary(_) => omit(Feature::Canary, at.field("canary")),
    };
    if omitted {
        service.update.strategy = Strategy::default();
    }
}

#[cfg(test)]
#[path = "feature_tests.rs"]
mod tests;
