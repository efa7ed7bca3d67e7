//! The environment contract: the variables that every instance finds, on every backend.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{PortName, ServiceName, env_name};

/// Variables that the contract sets; an app may not set them itself.
pub const RESERVED: [&str; 8] = [
    "HOST",
    "PORT",
    "SECRETS_DIR",
    "CONFIGS_DIR",
    "VOLUMES_DIR",
    "ADVERTISE_HOST",
    "DEPLOYKIT_INSTANCE",
    REGISTRY,
];

/// A host name or IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Address {
    /// A host name or IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Where an instance shall listen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listen {
    /// The address to bind: `HOST`.
    pub host: String,
    /// The address that others reach it at: `ADVERTISE_HOST`.
    pub advertise: String,
    /// A port for each that its service declares, in that order: the first is `PORT`, a later one
    /// with a name `PORT_<NAME>`.
    pub ports: Vec<(Option<PortName>, u16)>,
}

/// The URL of the service registry, where the app has one: [`App::registry`](super::App::registry).
pub(crate) const REGISTRY: &str = "DEPLOYKIT_REGISTRY";

/// What the environment contract is filled from, but for `DEPLOYKIT_REGISTRY`: that is the same
/// for every instance of an app, and so among the variables of its templates.
///
/// ```
/// use deploykit_core::model::{Address, Contract, Listen, ServiceName};
/// let users = ServiceName::new("user-db")?;
/// let contract = Contract {
///     instance: "posts-1",
///     listen: Listen { host: "127.0.0.1".into(), advertise: "127.0.0.1".into(), ports: vec![(None, 4000)] },
///     peers: vec![(&users, Address { host: "127.77.0.1".into(), port: 5432 })],
///     secrets_dir: "/run/secrets", configs_dir: "/run/configs", volumes_dir: "/volumes",
/// };
/// let variables = contract.variables();
/// assert_eq!(variables["PORT"], "4000");
/// assert_eq!(variables["USER_DB_SERVICE_PORT"], "5432");
/// # Ok::<(), deploykit_core::model::NameError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Contract<'a> {
    /// `DEPLOYKIT_INSTANCE`.
    pub instance: &'a str,
    /// `HOST`, `PORT`, `PORT_<NAME>`, `ADVERTISE_HOST`.
    pub listen: Listen,
    /// `<NAME>_SERVICE_HOST` and `<NAME>_SERVICE_PORT` of each service that it depends on or
    /// connects to, at that service's first port.
    pub peers: Vec<(&'a ServiceName, Address)>,
    /// `SECRETS_DIR`: the folder with a file for each secret.
    pub secrets_dir: &'a str,
    /// `CONFIGS_DIR`: the folder with a file for each config.
    pub configs_dir: &'a str,
    /// `VOLUMES_DIR`: the folder with a folder for each volume.
    pub volumes_dir: &'a str,
}

impl Contract<'_> {
    /// The variables.
    pub fn variables(&self) -> BTreeMap<String, String> {
        let mut variables = BTreeMap::new();
        let mut set = |name: &str, value: String| {
            variables.insert(name.to_owned(), value);
        };
        set("HOST", self.listen.host.clone());
        set("ADVERTISE_HOST", self.listen.advertise.clone());
        for (index, (name, port)) in self.listen.ports.iter().enumerate() {
            if index == 0 {
                set("PORT", port.to_string());
            }
            if let Some(name) = name {
                set(&format!("PORT_{}", env_name(name.as_str())), port.to_string());
            }
        }
        for (peer, address) in &self.peers {
            set(&format!("{}_SERVICE_HOST", peer.env_prefix()), address.host.clone());
            set(&format!("{}_SERVICE_PORT", peer.env_prefix()), address.port.to_string());
        }
        set("SECRETS_DIR", self.secrets_dir.to_owned());
        set("CONFIGS_DIR", self.configs_dir.to_owned());
        set("VOLUMES_DIR", self.volumes_dir.to_owned());
        set("DEPLOYKIT_INSTANCE", self.instance.to_owned());
        variables
    }
}
