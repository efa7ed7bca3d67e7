//! What a backend runs at this moment.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::diagnosis::Reason;
use crate::hash::SpecHash;
use crate::model::{Address, NetworkName, Publish, ServiceName, VolumeName};

/// Everything of one app that a backend runs or keeps, found by its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Instances of services, and the runs of jobs that have not been collected.
    pub instances: Vec<Instance>,
    /// The endpoints of services.
    pub endpoints: BTreeMap<ServiceName, Endpoint>,
    /// Volumes.
    pub volumes: BTreeSet<VolumeName>,
    /// Networks.
    pub networks: BTreeSet<NetworkName>,
    /// What controllers of the backend's own make instances from, whether or not there are any.
    #[serde(default)]
    pub controllers: BTreeMap<ServiceName, SpecHash>,
    /// The hashes of the [schedules](crate::ScheduleSpec) by which jobs run by themselves.
    #[serde(default)]
    pub schedules: BTreeMap<ServiceName, SpecHash>,
    /// The hashes of [raw objects](crate::model::App::raw), by their names in the app; one that the
    /// app can have no name for is here under any other text.
    #[serde(default)]
    pub raw: BTreeMap<String, SpecHash>,
    /// Whether the backend runs something that keeps the state of this app alone, and that goes
    /// with the last of it. No plan rests on it; a removal that was cut off at its very end is
    /// known by it.
    #[serde(default)]
    pub has_keeper: bool,
}

/// One process, container or pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id, unique within the backend.
    pub id: String,
    /// The service or job.
    pub service: ServiceName,
    /// The revision that it was made for.
    pub revision: u64,
    /// The hash of what it is.
    pub hash: SpecHash,
    /// Which of the replicas it is, from 0; a replica's own volume goes by it.
    pub slot: u32,
    /// What it is doing.
    pub state: InstanceState,
    /// Whether it passes its probes, or runs where it has none.
    pub ready: bool,
    /// How often it was started again after it had ended.
    pub restarts: u32,
    /// Where it listens, one for each declared port.
    pub addresses: Vec<Address>,
    /// When it was last started.
    pub started_at: Option<SystemTime>,
    /// What it is to the host: `pid 4711`, a container's id, a node and a pod.
    pub host: String,
    /// What is wrong with it, where something is.
    pub trouble: Option<Reason>,
}

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InstanceState {
    /// It is known, and not running yet.
    Starting,
    /// It runs.
    Running,
    /// It has ended and waits to be started again.
    BackOff,
    /// It was asked to end.
    Stopping,
    /// It has ended for good.
    Exited(Exit),
}

/// How an instance ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Nobody saw how; never counted as a success.
    Lost,
}

impl Exit {
    /// Whether it ended with exit code 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Lost => f.write_str("exit code unknown"),
        }
    }
}

/// The stable address of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The hash of the [`EndpointSpec`](crate::EndpointSpec) that it was made from.
    pub hash: SpecHash,
    /// Its ports, in the order of their declaration.
    pub ports: Vec<EndpointPort>,
    /// The instances that may take new requests.
    pub routed: BTreeSet<String>,
}

/// One port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The port that the service declares.
    pub declared: u16,
    /// Where services of the app reach it.
    pub address: Address,
    /// How it is published.
    pub publish: Publish,
    /// Where callers outside of the app reach it, where it is published.
    pub public: Option<Address>,
}

impl Observation {
    /// The instances of one service or job.
    pub fn of<'a>(&'a self, service: &'a ServiceName) -> impl Iterator<Item = &'a Instance> {
        self.instances.iter().filter(move |i| i.service == *service)
    }

    /// The services and jobs of which there is anything.
    pub fn services(&self) -> BTreeSet<&ServiceName> {
        let present = self.instances.iter().map(|instance| &instance.service);
        let made = self.controllers.keys().chain(self.schedules.keys());
        present.chain(self.endpoints.keys()).chain(made).collect()
    }

    /// The instance of that id.
    pub fn instance(&self, id: &str) -> Option<&Instance> {
        self.instances.iter().find(|i| i.id == id)
    }

    /// Whether the backend has nothing of the app, volumes aside.
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
            && self.endpoints.is_empty()
            && self.networks.is_empty()
            && self.controllers.is_empty()
            && self.schedules.is_empty()
            && self.raw.is_empty()
    }
}

impl Instance {
    /// Whether it has ended for good.
    pub fn exit(&self) -> Option<Exit> {
        match self.state {
            InstanceState::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}
