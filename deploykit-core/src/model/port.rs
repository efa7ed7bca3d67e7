//! Ports and how they are published.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::{PortName, SecretName};

/// A port that a service listens on.
///
/// ```
/// use deploykit_core::model::{Port, Publish};
/// let port = Port::http(8080).public();
/// assert_eq!(port.publish, Publish::Public);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Port {
    /// Its name; a service's second and later ports want one: instances find them in `PORT_<NAME>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<PortName>,
    /// The number that the service is reached at by other services.
    pub port: u16,
    /// What is spoken on it.
    #[serde(default)]
    pub protocol: Protocol,
    /// Who can reach it from outside the app.
    #[serde(default)]
    pub publish: Publish,
}

/// What is spoken on a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Protocol {
    /// HTTP/1.1, or HTTP/2 in the clear; balanced per request.
    Http,
    /// A byte stream; balanced per connection.
    #[default]
    Tcp,
    /// Datagrams.
    Udp,
}

/// Who can reach a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Publish {
    /// Services of the app.
    #[default]
    Internal,
    /// Also callers outside; the backend chooses the address and the status reports it.
    Public,
    /// Also callers outside, at this port of the host. HTTP and TCP are balanced there, over any
    /// number of instances; datagrams are not, so that only one instance may run at a time.
    HostPort(u16),
    /// Also callers outside, by the host name and path of an HTTP request.
    Route(Route),
}

/// A place in the space of HTTP URLs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// The host name.
    pub host: String,
    /// The path prefix.
    #[serde(default = "root")]
    pub path: String,
    /// The secret for HTTPS: the certificates and their private key in one file, in
    /// [PEM](https://www.rfc-editor.org/rfc/rfc7468).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SecretName>,
}

fn root() -> String {
    "/".into()
}

impl Port {
    fn new(port: u16, protocol: Protocol) -> Self {
        Self { name: None, port, protocol, publish: Publish::Internal }
    }

    /// A port that speaks HTTP.
    pub fn http(port: u16) -> Self {
        Self::new(port, Protocol::Http)
    }

    /// A port that speaks a protocol of its own over TCP.
    pub fn tcp(port: u16) -> Self {
        Self::new(port, Protocol::Tcp)
    }

    /// A port that takes datagrams.
    pub fn udp(port: u16) -> Self {
        Self::new(port, Protocol::Udp)
    }

    /// Reachable from outside, at an address of the backend's choice.
    pub fn public(self) -> Self {
        self.publish(Publish::Public)
    }

    /// Reachable as said.
    pub fn publish(mut self, publish: Publish) -> Self {
        self.publish = publish;
        self
    }

    /// Under this name.
    pub fn named(mut self, name: PortName) -> Self {
        self.name = Some(name);
        self
    }
}
