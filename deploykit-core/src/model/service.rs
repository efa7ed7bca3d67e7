//! Services: what runs until it is removed. Jobs: what runs to an end.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::port::Port;
use super::probe::Probes;
use super::schedule::Schedule;
use super::units::{Percent, duration_option};
use super::update::{RestartPolicy, Update};
use super::workload::{self, workload};

/// How many instances a service has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Replicas {
    /// That many.
    Fixed(u32),
    /// One on each node.
    Global,
    /// As many as the load asks for.
    Autoscale(Autoscale),
}

/// Bounds and goal of a service whose number of instances follows its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Autoscale {
    /// At least.
    pub min: u32,
    /// At most.
    pub max: u32,
    /// The share of the requested CPU time that instances use on average.
    pub target_cpu: Percent,
}

/// [`Replicas::Autoscale`] as it is written.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Scaled {
    autoscale: Autoscale,
}

impl Default for Replicas {
    fn default() -> Self {
        Self::Fixed(1)
    }
}

impl fmt::Display for Replicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(n) => n.fmt(f),
            Self::Global => f.write_str("global"),
            Self::Autoscale(a) => write!(f, "{} to {}", a.min, a.max),
        }
    }
}

impl Serialize for Replicas {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Fixed(n) => serializer.serialize_u32(*n),
            Self::Global => serializer.serialize_str("global"),
            Self::Autoscale(autoscale) => Scaled { autoscale: *autoscale }.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Replicas {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;
        impl<'de> Visitor<'de> for Form {
            type Value = Replicas;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number, `global`, or `autoscale: {min, max, target_cpu}`")
            }
            fn visit_u64<E: de::Error>(self, n: u64) -> Result<Replicas, E> {
                u32::try_from(n)
                    .map(Replicas::Fixed)
                    .map_err(|_| E::invalid_value(Unexpected::Unsigned(n), &self))
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Replicas, E> {
                match word {
                    "global" => Ok(Replicas::Global),
                    _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Replicas, A::Error> {
                let scaled = Scaled::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Replicas::Autoscale(scaled.autoscale))
            }
        }
        deserializer.deserialize_any(Form)
    }
}

/// Published as the three forms that are read, of which no derived schema knows.
impl JsonSchema for Replicas {
    fn schema_name() -> Cow<'static, str> {
        "Replicas".into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "How many instances a service has.",
            "oneOf": [
                {"type": "integer", "minimum": 0, "maximum": u32::MAX},
                {"type": "string", "const": "global"},
                generator.subschema_for::<Scaled>(),
            ],
        })
    }
}

/// What the name of a service leads to. The names are those of
/// [Compose](https://github.com/compose-spec/compose-spec/blob/main/deploy.md#endpoint_mode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndpointMode {
    /// One address, behind which requests are balanced.
    #[default]
    Vip,
    /// The addresses of all instances that are ready, for callers that choose one themselves; an
    /// instance with a volume of its own has a name of its own below it, too.
    Dnsrr,
}

workload! {
    /// A program that runs in one or more instances until it is removed.
    ///
    /// ```
    /// use deploykit_core::model::{ImageSpec, Port, Probe, Service};
    /// let posts = Service::build("posts", ImageSpec::binary("target/release/posts"))
    ///     .replicas(3)
    ///     .port(Port::http(8080))
    ///     .readiness(Probe::http("/healthz"));
    /// ```
    Service {
        /// How many instances there are.
        #[serde(default)]
        pub replicas: Replicas,
        /// The ports that it listens on; the first is told to instances as `PORT`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        pub ports: Vec<Port>,
        /// What its name leads to.
        #[serde(default, skip_serializing_if = "workload::is_default")]
        pub endpoint_mode: EndpointMode,
        /// Questions that tell whether an instance has started, is ready, is alive.
        #[serde(default, skip_serializing_if = "workload::is_default")]
        pub probes: Probes,
        /// How it moves to a new revision.
        #[serde(default, skip_serializing_if = "workload::is_default")]
        pub update: Update,
        /// When an instance that has ended is started again.
        #[serde(default, skip_serializing_if = "workload::is_default")]
        pub restart: RestartPolicy,
    }
    defaults { replicas, ports, endpoint_mode, probes, update, restart }
}

workload! {
    /// A program that runs to its end, once for each content: a second apply of the same job does
    /// not run it again, and a rollback never does.
    Job {
        /// When it runs; absent for once at apply.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub schedule: Option<Schedule>,
        /// How often it is tried again after a failure. Default 0.
        #[serde(default, skip_serializing_if = "workload::is_default")]
        pub retries: u32,
        /// How long it may run.
        #[serde(default, with = "duration_option", skip_serializing_if = "Option::is_none")]
        #[schemars(with = "Option<String>")]
        pub timeout: Option<Duration>,
    }
    defaults { schedule, retries, timeout }
}
