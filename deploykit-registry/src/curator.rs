//! An instance as Apache Curator's service discovery stores it, the JSON in a node of ZooKeeper:
//! <https://curator.apache.org/docs/service-discovery>.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use deploykit_core::Registered;
use deploykit_core::model::{Address, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One instance of a service. Unknown fields are passed over, as Curator does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceInstance {
    /// The service.
    pub name: String,
    /// Its id, unique within the service.
    pub id: String,
    /// Where it is: a host name or an IP address.
    pub address: Option<String>,
    /// Its port.
    pub port: Option<u16>,
    /// Its port for TLS.
    pub ssl_port: Option<u16>,
    /// What the application added, with Jackson's notes on Java's types: see
    /// [`plain_payload`](ServiceInstance::plain_payload).
    #[serde(default)]
    pub payload: Value,
    /// When it was registered, in milliseconds since 1970.
    #[serde(rename = "registrationTimeUTC", default)]
    pub registration_time_utc: i64,
    /// How it ends.
    pub service_type: ServiceType,
    /// How its URI is formed.
    #[serde(default)]
    pub uri_spec: Option<UriSpec>,
    /// Whether callers shall use it.
    #[serde(default = "enabled")]
    pub enabled: bool,
}

fn enabled() -> bool {
    true
}

/// How an instance ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ServiceType {
    /// With the session of who registered it.
    Dynamic,
    /// When it is removed.
    Static,
    /// Never.
    Permanent,
    /// With the session, and the next one has its place in the order.
    DynamicSequential,
}

/// How a URI is formed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UriSpec {
    /// Its parts, in their order.
    pub parts: Vec<UriPart>,
}

/// A part of a URI.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UriPart {
    /// Its text, or the name of a field of the instance.
    pub value: String,
    /// Whether it is such a name.
    pub variable: bool,
}

impl ServiceInstance {
    /// An instance of ours, registered now: its metadata is the payload, as a map of Java.
    pub fn of(instance: &Registered) -> Self {
        let payload = match instance.metadata.is_empty() {
            true => Value::Null,
            false => {
                let class = ("@class".to_owned(), Value::from("java.util.HashMap"));
                let facts = instance.metadata.iter();
                facts.map(|(k, v)| (k.clone(), v.as_str().into())).chain([class]).collect()
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            name: instance.service.to_string(),
            id: instance.id.clone(),
            address: Some(instance.address.host.clone()),
            port: Some(instance.address.port),
            ssl_port: None,
            payload,
            registration_time_utc: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            service_type: ServiceType::Dynamic,
            uri_spec: None,
            enabled: true,
        }
    }

    /// As an instance of ours: None where it is disabled, or has no address or port. A payload
    /// that is a map becomes the metadata.
    pub fn to_registered(&self, service: &ServiceName) -> Option<Registered> {
        let host = self.address.clone()?;
        let port = self.port.or(self.ssl_port)?;
        let address = Address { host, port };
        let mut instance = Registered::new(service.clone(), self.id.as_str(), address);
        if let Value::Object(facts) = self.plain_payload() {
            let text = |value| match value {
                Value::String(text) => text,
                other => other.to_string(),
            };
            instance.metadata = facts.into_iter().map(|(k, v)| (k, text(v))).collect();
        }
        self.enabled.then_some(instance)
    }

    /// The payload without Jackson's notes on Java's types.
    pub fn plain_payload(&self) -> Value {
        plain(&self.payload)
    }

    /// The URI that its specification forms; a variable that is no field is left out.
    pub fn uri(&self) -> Option<String> {
        let number = |port: Option<u16>| port.map(|port| port.to_string()).unwrap_or_default();
        let scheme = if self.ssl_port.is_some() { "https" } else { "http" };
        let fields = BTreeMap::from([
            ("scheme", scheme.to_owned()),
            ("name", self.name.clone()),
            ("id", self.id.clone()),
            ("address", self.address.clone().unwrap_or_default()),
            ("port", number(self.port)),
            ("ssl-port", number(self.ssl_port)),
            ("registration-time-utc", self.registration_time_utc.to_string()),
            ("[", "{".to_owned()),
            ("]", "}".to_owned()),
        ]);
        let part = |part: &UriPart| match part.variable {
            true => fields.get(part.value.as_str()).cloned().unwrap_or_default(),
            false => part.value.clone(),
        };
        Some(self.uri_spec.as_ref()?.parts.iter().map(part).collect())
    }
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields = fields.iter().filter(|(name, _)| *name != "@class");
            fields.map(|(name, value)| (name.clone(), plain(value))).collect()
        }
        Value::Array(items) => match items.as_slice() {
            [Value::String(class), inner] if class.starts_with("java.") => plain(inner),
            items => items.iter().map(plain).collect(),
        },
        other => other.clone(),
    }
}
