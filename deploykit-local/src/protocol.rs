//! What clients and the supervisor say to each other over the folder's socket, in the frames of
//! [`deploykit_agent::wire`]. Each side names its version first.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use deploykit_agent::wire::SecretText;
use deploykit_core::model::{AppName, SecretName, ServiceName, VolumeName};
use deploykit_core::{EndpointSpec, Error, ErrorKind, Expected, Fence, InstanceSpec, Lease};
use serde::{Deserialize, Serialize};

use crate::error::BACKEND;

/// The version of this protocol: both sides must speak the same.
pub(crate) const PROTOCOL: u32 = 2;

/// The client's first word. Its form stays the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) protocol: u32,
    pub(crate) program: String,
}

/// The supervisor's first word. Its form stays the same in every version.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Welcome {
    pub(crate) protocol: u32,
    pub(crate) program: String,
    pub(crate) pid: u32,
}

/// The version of this crate, for people.
pub(crate) fn program() -> String {
    format!("deploykit {}", env!("CARGO_PKG_VERSION"))
}

/// What can be asked of the supervisor; the names are those of core's traits.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    Apps,
    Get {
        app: AppName,
        key: String,
    },
    Keys {
        app: AppName,
        prefix: String,
    },
    Put {
        fence: Fence,
        key: String,
        value: String,
        expected: Expected,
    },
    Delete {
        fence: Fence,
        key: String,
        version: u64,
    },
    Acquire {
        app: AppName,
        holder: String,
        ttl: Duration,
    },
    Renew {
        lease: Lease,
        ttl: Duration,
    },
    Release {
        lease: Lease,
    },
    PutSecret {
        app: AppName,
        name: SecretName,
        value: SecretText,
        only_first: bool,
    },
    GetSecret {
        app: AppName,
        name: SecretName,
        version: u64,
    },
    SecretVersions {
        app: AppName,
        name: SecretName,
    },
    ListSecrets {
        app: AppName,
    },
    DeleteSecrets {
        app: AppName,
        name: SecretName,
        versions: Vec<u64>,
    },
    /// Answered with what has changed since that version of an earlier answer.
    Inspect {
        app: AppName,
        since: Option<u64>,
    },
    Watch {
        app: AppName,
    },
    EnsureVolume {
        fence: Fence,
        name: VolumeName,
    },
    RemoveVolume {
        fence: Fence,
        name: VolumeName,
    },
    EnsureEndpoint {
        fence: Fence,
        endpoint: EndpointSpec,
    },
    RemoveEndpoint {
        fence: Fence,
        service: ServiceName,
    },
    Route {
        fence: Fence,
        service: ServiceName,
        instances: BTreeSet<String>,
    },
    Drain {
        fence: Fence,
        service: ServiceName,
        instance: String,
        deadline: Duration,
    },
    Start {
        fence: Fence,
        spec: Box<InstanceSpec>,
    },
    Stop {
        fence: Fence,
        instance: String,
    },
    Remove {
        fence: Fence,
        instance: String,
    },
    Collect {
        fence: Fence,
        digests: BTreeSet<String>,
    },
    Surroundings {
        app: AppName,
        instance: String,
    },
}

/// What a command beside an instance is run with.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Surroundings {
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) workdir: PathBuf,
}

/// The other side is gone or makes no sense.
pub(crate) fn broken(message: impl std::fmt::Display) -> Error {
    let message = message.to_string();
    Error::new(ErrorKind::Unavailable, "talk to the supervisor", message).on(BACKEND)
}
