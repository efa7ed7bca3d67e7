//! What clients and agents say to each other. Each side names its version first.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use deploykit_core::model::{AppName, Probes, SecretName, ServiceName};
use deploykit_core::{Expected, Fence, Lease};
use serde::{Deserialize, Serialize};

use crate::probe::Health;
use crate::proxy::{Mode, Stats};
use crate::wire::SecretText;

/// The version of this protocol: both sides must speak the same.
pub const PROTOCOL: u32 = 1;

/// The client's first word. Its form stays the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hello {
    /// The version that it speaks.
    pub protocol: u32,
    /// What it is, for people.
    pub program: String,
}

/// The agent's first word. Its form stays the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that it speaks.
    pub protocol: u32,
    /// What it is, for people.
    pub program: String,
}

/// What can be asked of an agent. Everything that carries a [`Fence`] is refused with `Conflict`
/// where the agent knows of a newer epoch.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Request {
    /// See [`StateStore::apps`](deploykit_core::StateStore::apps).
    Apps,
    /// See [`StateStore::get`](deploykit_core::StateStore::get).
    Get {
        /// The app.
        app: AppName,
        /// The key.
        key: String,
    },
    /// See [`StateStore::keys`](deploykit_core::StateStore::keys).
    Keys {
        /// The app.
        app: AppName,
        /// What the keys begin with.
        prefix: String,
    },
    /// See [`StateStore::put`](deploykit_core::StateStore::put).
    Put {
        /// The right to write.
        fence: Fence,
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is there.
        expected: Expected,
    },
    /// See [`StateStore::delete`](deploykit_core::StateStore::delete).
    Delete {
        /// The right to write.
        fence: Fence,
        /// The key.
        key: String,
        /// The version that is there.
        version: u64,
    },
    /// See [`StateStore::acquire`](deploykit_core::StateStore::acquire). A lease that was taken on
    /// a connection ends with it, unless it was renewed on another one.
    Acquire {
        /// The app.
        app: AppName,
        /// Who takes it.
        holder: String,
        /// For how long.
        ttl: Duration,
    },
    /// See [`StateStore::renew`](deploykit_core::StateStore::renew).
    Renew {
        /// What is held.
        lease: Lease,
        /// For how much longer.
        ttl: Duration,
    },
    /// See [`StateStore::release`](deploykit_core::StateStore::release).
    Release {
        /// What is given back.
        lease: Lease,
    },
    /// The versions of a secret, and what they are sealed with: [`SealedVersions`].
    SecretVersions {
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
    },
    /// The secrets of an app with their newest versions.
    ListSecrets {
        /// The app.
        app: AppName,
    },
    /// Stores a sealed value as a version that does not exist; the same value again is no error.
    PutSealed {
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
        /// One more than any version before.
        version: u64,
        /// The value, which the agent cannot read.
        sealed: SecretText,
    },
    /// The sealed value of a version.
    GetSealed {
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
        /// The version.
        version: u64,
    },
    /// See [`SecretStore::delete`](deploykit_core::SecretStore::delete).
    DeleteSecrets {
        /// The app.
        app: AppName,
        /// The secret.
        name: SecretName,
        /// The versions.
        versions: Vec<u64>,
    },
    /// See [`Client::set_target`](super::Client::set_target).
    SetTarget {
        /// The right to change.
        fence: Fence,
        /// The id of the instance.
        instance: String,
        /// How to reach it.
        target: Box<Target>,
    },
    /// See [`Client::remove_target`](super::Client::remove_target).
    RemoveTarget {
        /// The right to change.
        fence: Fence,
        /// The id of the instance.
        instance: String,
    },
    /// See [`Client::set_endpoint`](super::Client::set_endpoint).
    SetEndpoint {
        /// The right to change.
        fence: Fence,
        /// The service.
        service: ServiceName,
        /// Where it listens.
        listeners: Vec<Listener>,
    },
    /// See [`Client::remove_endpoint`](super::Client::remove_endpoint).
    RemoveEndpoint {
        /// The right to change.
        fence: Fence,
        /// The service.
        service: ServiceName,
    },
    /// See [`Client::route`](super::Client::route).
    Route {
        /// The right to change.
        fence: Fence,
        /// The service.
        service: ServiceName,
        /// The ids of the instances.
        instances: BTreeSet<String>,
    },
    /// See [`Client::drain`](super::Client::drain).
    Drain {
        /// The right to change.
        fence: Fence,
        /// The service.
        service: ServiceName,
        /// The id of the instance.
        instance: String,
        /// For how long.
        deadline: Duration,
    },
    /// See [`Client::inspect`](super::Client::inspect).
    Inspect,
    /// See [`Client::write_files`](super::Client::write_files).
    WriteFiles {
        /// The right to change.
        fence: Fence,
        /// The folder.
        folder: PathBuf,
        /// The files.
        files: Vec<SecretFile>,
    },
    /// See [`Client::list_files`](super::Client::list_files).
    ListFiles {
        /// The folder.
        folder: PathBuf,
    },
    /// See [`Client::remove_files`](super::Client::remove_files).
    RemoveFiles {
        /// The right to change.
        fence: Fence,
        /// The folder.
        folder: PathBuf,
        /// The names of the files.
        names: BTreeSet<String>,
    },
}

/// What an agent keeps of a secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedVersions {
    /// Which key the values of this agent are sealed with: an id that it was made with.
    pub key: String,
    /// Whether there is any secret yet that the key has to open.
    pub key_in_use: bool,
    /// The newest version that ever was, 0 where there was none.
    pub last: u64,
    /// The versions that are there, oldest first.
    pub versions: Vec<u64>,
}

/// An instance that an agent knows: how to reach it, and what to ask it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Where each of the service's ports is served, the first port first: the declared port, and a
    /// host and port as `172.18.0.4:8080` or `web-1:8080`. A name is looked up again and again, so
    /// that an instance keeps its requests when it is started again at another address.
    pub ports: Vec<(u16, String)>,
    /// What to ask it; of nothing, it is ready as long as it is known. Exec probes are refused:
    /// the agent is not where the instance is.
    pub probes: Probes,
    /// What tells this start of the instance from the one before it: when it changes, the probes
    /// begin anew.
    #[serde(default)]
    pub start: String,
}

/// An address that requests come to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The port that the service declares, as targets name it.
    pub declared: u16,
    /// Where it listens, in the network of the agent.
    pub address: SocketAddr,
    /// What it balances.
    pub mode: Mode,
}

/// What an agent serves and asks at this moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The instances that it knows, by their ids.
    pub targets: BTreeMap<String, TargetReport>,
    /// The endpoints that it serves.
    pub endpoints: BTreeMap<ServiceName, EndpointReport>,
}

/// See [`Report::targets`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// As it was set.
    pub target: Target,
    /// What its probes say.
    pub health: Health,
}

/// See [`Report::endpoints`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointReport {
    /// Where it listens, each with its counters.
    pub listeners: Vec<(Listener, Stats)>,
    /// The instances that may take new requests.
    pub routed: BTreeSet<String>,
}

/// A file for one user to read.
#[derive(Debug, Serialize, Deserialize)]
pub struct SecretFile {
    /// Its name, without a folder.
    pub name: String,
    /// What is in it.
    pub value: SecretText,
    /// The user who may read it.
    pub uid: u32,
    /// That user's group.
    pub gid: u32,
}
