//! Names and labels of what is made on an engine.
//!
//! An instance is the container `APP.INSTANCE`; what stands beside the instances has a word in
//! between (`APP.proxy.SERVICE`). Names of this library have no dot, so the two never meet.

use std::collections::HashMap;

use deploykit_core::model::{AppName, NetworkName, ServiceName, VolumeName};

pub(crate) const MANAGED_BY: &str = "io.deploykit.managed-by";
pub(crate) const APP: &str = "io.deploykit.app";
pub(crate) const ROLE: &str = "io.deploykit.role";
pub(crate) const SERVICE: &str = "io.deploykit.service";
pub(crate) const REVISION: &str = "io.deploykit.revision";
pub(crate) const HASH: &str = "io.deploykit.hash";
pub(crate) const SLOT: &str = "io.deploykit.slot";
pub(crate) const INSTANCE: &str = "io.deploykit.instance";
/// The service whose proxy a network leads to.
pub(crate) const TO: &str = "io.deploykit.to";
pub(crate) const NAME: &str = "io.deploykit.name";
/// Who asks an instance whether it is ready: `keeper`, `engine`, `both`, or nobody.
pub(crate) const PROBES: &str = "io.deploykit.probes";
/// The declared ports of an instance, separated by commas.
pub(crate) const PORTS: &str = "io.deploykit.ports";
/// The container that keeps an instance's secrets in memory.
pub(crate) const HOLDER: &str = "io.deploykit.secrets";
/// What tells who made a volume, of several that wanted it at once: a mark of their own.
pub(crate) const MADE_AS: &str = "io.deploykit.made-as";

/// Who has made it.
pub(crate) const US: &str = "deploykit";

/// What a container, network, volume or image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Instance,
    Keeper,
    Proxy,
    Secrets,
    Network,
    Volume,
    State,
}

impl Role {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Instance => "instance",
            Self::Keeper => "keeper",
            Self::Proxy => "proxy",
            Self::Secrets => "secrets",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::State => "state",
        }
    }
}

/// The labels of everything that is made for an app.
pub(crate) fn labels(app: &AppName, role: Role) -> HashMap<String, String> {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    HashMap::from([pair(MANAGED_BY, US), pair(APP, app.as_str()), pair(ROLE, role.as_str())])
}

/// A filter for everything of an app, or of one role of it.
pub(crate) fn of(app: &AppName, role: Option<Role>) -> HashMap<String, Vec<String>> {
    let mut wanted = vec![format!("{MANAGED_BY}={US}"), format!("{APP}={app}")];
    wanted.extend(role.map(|role| format!("{ROLE}={}", role.as_str())));
    HashMap::from([("label".to_owned(), wanted)])
}

/// Whether labels say that something is ours, of this app.
pub(crate) fn are_ours(labels: &HashMap<String, String>, app: &AppName) -> bool {
    labels.get(MANAGED_BY).is_some_and(|by| by == US)
        && labels.get(APP).is_some_and(|of| of == app.as_str())
}

pub(crate) fn instance(app: &AppName, id: &str) -> String {
    format!("{app}.{id}")
}

pub(crate) fn keeper(app: &AppName) -> String {
    format!("{app}.deploykit.keeper")
}

pub(crate) fn state(app: &AppName) -> String {
    format!("{app}.deploykit.state")
}

pub(crate) fn proxy(app: &AppName, service: &ServiceName) -> String {
    format!("{app}.proxy.{service}")
}

/// Of the container and of the volume that it fills; `hash` is of what is in there.
pub(crate) fn secrets(app: &AppName, service: &ServiceName, hash: &str) -> String {
    format!("{app}.secrets.{service}.{hash}")
}

pub(crate) fn volume(app: &AppName, name: &VolumeName, slot: Option<u32>) -> String {
    match slot {
        Some(slot) => format!("{app}.volume.{name}.{slot}"),
        None => format!("{app}.volume.{name}"),
    }
}

/// The network of the whole app.
pub(crate) fn app_network(app: &AppName) -> String {
    format!("{app}.deploykit.app")
}

/// The network of an isolated service and its proxy.
pub(crate) fn own_network(app: &AppName, service: &ServiceName) -> String {
    format!("{app}.service.{service}")
}

/// The network on which one isolated service reaches the proxy of another.
pub(crate) fn link_network(app: &AppName, from: &ServiceName, to: &ServiceName) -> String {
    format!("{app}.link.{from}.{to}")
}

/// A network that the app names.
pub(crate) fn named_network(app: &AppName, name: &NetworkName) -> String {
    format!("{app}.network.{name}")
}

/// The repository of the images that are built for an app.
pub(crate) fn repository(app: &AppName) -> String {
    format!("deploykit/{app}")
}
