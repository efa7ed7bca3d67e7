//! What services and jobs have in common, written once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::image::ImageSpec;
use super::mount::Mount;
use super::name::{NetworkName, ServiceName};
use super::units::{Bytes, Cpu};

/// When a dependency counts as there. The names are those of
/// [Compose](https://github.com/compose-spec/compose-spec/blob/main/05-services.md#depends_on).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// Its instances have been started.
    Started,
    /// Its instances are ready.
    #[default]
    Healthy,
    /// It is a job, and has ended with success.
    Completed,
}

/// What an instance may use of its host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU time at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_limit: Option<Cpu>,
    /// Memory at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<Bytes>,
    /// CPU time that is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_request: Option<Cpu>,
    /// Memory that is set aside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_request: Option<Bytes>,
}

/// Where instances may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Placement {
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub constraints: BTreeMap<String, String>,
    /// The node label over whose values instances are spread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<String>,
}

/// The account that instances run under in a cluster, made for their service or job alone:
/// [Kubernetes' ServiceAccount](https://kubernetes.io/docs/concepts/security/service-accounts/).
/// It may do nothing but for what others let it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceAccount {
    /// Whether instances find its token, by which the cluster knows them. Default no.
    #[serde(default, skip_serializing_if = "is_default")]
    pub token: bool,
}

/// The signal that asks an instance to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub enum Signal {
    /// The ordinary request to end.
    #[default]
    #[serde(rename = "SIGTERM")]
    Term,
    /// As from the keyboard.
    #[serde(rename = "SIGINT")]
    Int,
    /// As from the keyboard, with a core dump.
    #[serde(rename = "SIGQUIT")]
    Quit,
    /// The terminal is gone.
    #[serde(rename = "SIGHUP")]
    Hup,
    /// The first of a program's own.
    #[serde(rename = "SIGUSR1")]
    Usr1,
    /// The second of a program's own.
    #[serde(rename = "SIGUSR2")]
    Usr2,
    /// No request: an end at once.
    #[serde(rename = "SIGKILL")]
    Kill,
}

pub(super) fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A view of what services and jobs have in common.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "each field is documented on Service")]
pub struct Workload<'a> {
    pub image: &'a ImageSpec,
    pub command: &'a [String],
    pub args: &'a [String],
    pub env: &'a BTreeMap<String, String>,
    pub workdir: Option<&'a PathBuf>,
    pub user: Option<&'a str>,
    pub resources: &'a Resources,
    pub mounts: &'a [Mount],
    pub depends_on: &'a BTreeMap<ServiceName, Condition>,
    pub connects_to: &'a BTreeSet<ServiceName>,
    pub networks: &'a BTreeSet<NetworkName>,
    pub placement: &'a Placement,
    pub service_account: Option<ServiceAccount>,
    pub stop_signal: Signal,
    pub stop_grace: Duration,
    pub labels: &'a BTreeMap<String, String>,
}

impl<'a> Workload<'a> {
    /// Every service and job that this one depends on or connects to.
    pub fn peers(&self) -> BTreeSet<&'a ServiceName> {
        self.depends_on.keys().chain(self.connects_to).collect()
    }
}

/// Declares a struct with the fields of a workload and its own, and the view of it.
macro_rules! workload {
    ($(#[$doc:meta])* $name:ident { $($own:tt)* } defaults { $($field:ident),* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(deny_unknown_fields)]
        #[non_exhaustive]
        pub struct $name {
            /// What an instance runs.
            pub image: $crate::model::ImageSpec,
            /// Replaces the image's entry point; with a binary, comes before `args`.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub command: Vec<String>,
            /// The arguments.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub args: Vec<String>,
            /// Environment variables, beside those of the environment contract.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            pub env: BTreeMap<String, String>,
            /// The working folder, an absolute path.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub workdir: Option<std::path::PathBuf>,
            /// The user that it runs as.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub user: Option<String>,
            /// What an instance may use of its host.
            #[serde(default, skip_serializing_if = "crate::model::workload::is_default")]
            pub resources: $crate::model::Resources,
            /// Files that an instance finds.
            #[serde(default, skip_serializing_if = "Vec::is_empty")]
            pub mounts: Vec<$crate::model::Mount>,
            /// What has to be there first. Orders an apply; engines that restart things in any
            /// order go on doing so.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            pub depends_on: BTreeMap<$crate::model::ServiceName, $crate::model::Condition>,
            /// Services that it sends requests to.
            #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
            pub connects_to: BTreeSet<$crate::model::ServiceName>,
            /// Networks of the app that it joins, beside the app's own.
            #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
            pub networks: BTreeSet<$crate::model::NetworkName>,
            /// Where instances may run.
            #[serde(default, skip_serializing_if = "crate::model::workload::is_default")]
            pub placement: $crate::model::Placement,
            /// The account of its own that it runs under in a cluster. Absent: that of everybody.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub service_account: Option<$crate::model::ServiceAccount>,
            /// The signal that asks an instance to end. Default SIGTERM.
            #[serde(default, skip_serializing_if = "crate::model::workload::is_default")]
            pub stop_signal: $crate::model::Signal,
            /// How long it may take to end before it is killed. Default 10 s.
            #[serde(default = "crate::model::workload::ten_seconds", with = "crate::model::units::duration")]
            #[schemars(with = "String")]
            pub stop_grace: std::time::Duration,
            /// Labels of the caller's own.
            #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
            pub labels: BTreeMap<String, String>,
            $($own)*
        }

        impl $name {
            /// One that runs `image`, with every other field at its default.
            pub fn new(image: $crate::model::ImageSpec) -> Self {
                Self {
                    image,
                    command: Vec::new(),
                    args: Vec::new(),
                    env: Default::default(),
                    workdir: None,
                    user: None,
                    resources: Default::default(),
                    mounts: Vec::new(),
                    depends_on: Default::default(),
                    connects_to: Default::default(),
                    networks: Default::default(),
                    placement: Default::default(),
                    service_account: None,
                    stop_signal: Default::default(),
                    stop_grace: crate::model::workload::ten_seconds(),
                    labels: Default::default(),
                    $($field: Default::default()),*
                }
            }

            /// What services and jobs have in common.
            pub fn workload(&self) -> $crate::model::Workload<'_> {
                $crate::model::Workload {
                    image: &self.image,
                    command: &self.command,
                    args: &self.args,
                    env: &self.env,
                    workdir: self.workdir.as_ref(),
                    user: self.user.as_deref(),
                    resources: &self.resources,
                    mounts: &self.mounts,
                    depends_on: &self.depends_on,
                    connects_to: &self.connects_to,
                    networks: &self.networks,
                    placement: &self.placement,
                    service_account: self.service_account,
                    stop_signal: self.stop_signal,
                    stop_grace: self.stop_grace,
                    labels: &self.labels,
                }
            }
        }
    };
}
pub(super) use workload;
