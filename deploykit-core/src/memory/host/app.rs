//! What the host has of one app.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use super::life::Life;
use crate::hash::SpecHash;
use crate::memory::Dials;
use crate::model::{
    Address, Contract, Listen, NetworkName, Publish, ServiceName, VolumeName, VolumeScope,
};
use crate::observation::{Endpoint, EndpointPort, Instance, InstanceState, Observation};
use crate::orchestrator::{LogLine, OutputStream};
use crate::resolved::EndpointSpec;
use crate::runtime::InstanceSpec;

/// What the host has of one app.
#[derive(Debug, Default)]
pub(super) struct App {
    pub(super) instances: BTreeMap<String, Sim>,
    pub(super) endpoints: BTreeMap<ServiceName, (EndpointSpec, BTreeSet<String>)>,
    pub(super) networks: BTreeSet<NetworkName>,
    /// The files of each volume, by path: those of a replica's own begin with its slot.
    pub(super) volumes: BTreeMap<VolumeName, BTreeMap<String, String>>,
    /// Lines by the order in which they were written.
    pub(super) logs: BTreeMap<u64, LogLine>,
    pub(super) next_line: u64,
}

/// One simulated instance.
#[derive(Debug)]
pub(super) struct Sim {
    pub(super) spec: InstanceSpec,
    pub(super) dials: Dials,
    pub(super) life: Life,
    /// What the rest of the library sees of it.
    pub(super) seen: Instance,
    /// Requests that it has not answered.
    pub(super) in_flight: u32,
    /// Requests that it has taken.
    pub(super) served: u64,
}

impl Sim {
    pub(super) fn running(&self) -> bool {
        matches!(self.seen.state, InstanceState::Running | InstanceState::Stopping)
    }

    /// Its environment.
    pub(super) fn env(&self, app: &App) -> BTreeMap<String, String> {
        let template = &self.spec.template;
        let peers = template.peers.iter().filter_map(|(peer, port)| {
            let (endpoint, _) = app.endpoints.get(peer)?;
            let port = endpoint.ports.first().map_or(*port, |p| p.port);
            Some((peer, Address { host: host_of(peer), port }))
        });
        let contract = Contract {
            instance: &self.spec.id,
            listen: Listen {
                host: "0.0.0.0".into(),
                advertise: self.spec.id.clone(),
                ports: template.ports.iter().map(|p| (p.name.clone(), p.port)).collect(),
            },
            peers: peers.collect(),
            secrets_dir: "/secrets",
            configs_dir: "/configs",
            volumes_dir: "/volumes",
        };
        let mut env = template.env.clone();
        env.extend(contract.variables());
        env
    }

    /// Where a file of a volume is kept; nothing where it mounts no such volume.
    pub(super) fn volume_file(&self, volume: &str, file: &str) -> Option<String> {
        match self.spec.template.volumes.get(volume)? {
            VolumeScope::Shared => Some(file.to_owned()),
            VolumeScope::PerReplica => Some(format!("{}/{file}", self.spec.slot)),
        }
    }
}

/// The name under which a service is reached.
fn host_of(service: &ServiceName) -> String {
    format!("{service}.memory")
}

impl App {
    pub(super) fn observe(&self) -> Observation {
        let endpoints = self.endpoints.iter().map(|(service, (spec, routed))| {
            let ports = spec.ports.iter().map(|port| {
                let address = Address { host: host_of(service), port: port.port };
                let public = match &port.publish {
                    Publish::Internal => None,
                    Publish::HostPort(host_port) => {
                        Some(Address { port: *host_port, ..address.clone() })
                    }
                    Publish::Public | Publish::Route(_) => Some(address.clone()),
                };
                EndpointPort { declared: port.port, address, publish: port.publish.clone(), public }
            });
            let endpoint = Endpoint {
                hash: SpecHash::of_endpoint(spec),
                ports: ports.collect(),
                routed: routed.clone(),
            };
            (service.clone(), endpoint)
        });
        Observation {
            instances: self.instances.values().map(|sim| sim.seen.clone()).collect(),
            endpoints: endpoints.collect(),
            volumes: self.volumes.keys().cloned().collect(),
            networks: self.networks.clone(),
            ..Observation::default()
        }
    }

    pub(super) fn print(&mut self, instance: &str, stream: OutputStream, line: String) {
        let Some(sim) = self.instances.get(instance) else { return };
        let at = Some(SystemTime::now());
        let service = sim.spec.service.clone();
        let line = LogLine { service, instance: instance.to_owned(), stream, at, line };
        self.logs.insert(self.next_line, line);
        self.next_line += 1;
    }

    /// The last lines of an instance.
    pub(super) fn tail(&self, instance: &str, lines: usize) -> Vec<String> {
        let all = self.logs.values().rev().filter(|line| line.instance == instance);
        let mut tail: Vec<String> = all.take(lines).map(|line| line.line.clone()).collect();
        tail.reverse();
        tail
    }
}
