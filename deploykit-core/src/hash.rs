//! Hashes of what instances are.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::model::Publish;
use crate::resolved::{EndpointSpec, ScheduleSpec, Template};

/// `v1:` and a hash over what makes an instance different.
///
/// A found object is compared by [`SpecHash::matches`], with the version that it carries: a newer
/// library leaves what an older one has deployed as it is. The other way round, a version that
/// this library does not know never matches: what a newer one has deployed is replaced, since
/// nothing can be said of it.
///
/// ```
/// use deploykit_core::SpecHash;
/// let hash = SpecHash::from_text("v1:0a1b2c3d4e5f");
/// assert_eq!(hash.short(), "0a1b2c3d");
/// ```
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct SpecHash(String);

impl SpecHash {
    /// The hash of a template, in the newest version.
    pub fn of(template: &Template) -> Self {
        Self(v1(template))
    }

    /// The hash of an endpoint, in the newest version.
    pub fn of_endpoint(endpoint: &EndpointSpec) -> Self {
        Self(digest("v1", endpoint))
    }

    /// The hash of a schedule, in the newest version.
    pub fn of_schedule(schedule: &ScheduleSpec) -> Self {
        let template = of_instances(&schedule.template);
        Self(digest("v1", &ScheduleSpec { template, ..schedule.clone() }))
    }

    /// The hash of a [raw object](crate::model::App::raw), in the newest version.
    pub fn of_raw(object: &serde_json::Map<String, Value>) -> Self {
        Self(digest("v1", object))
    }

    /// A hash as a backend kept it.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether this is the hash of `template`, in the version that this hash carries.
    pub fn matches(&self, template: &Template) -> bool {
        match self.0.split_once(':') {
            Some(("v1", _)) => self.0 == v1(template),
            _ => false,
        }
    }

    /// Whether it is of the version that [`of`](Self::of) makes: of two such, equal is the same.
    pub(crate) fn is_newest(&self) -> bool {
        self.0.starts_with("v1:")
    }

    /// The hash as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first 8 hexadecimal digits, for names and for people.
    pub fn short(&self) -> &str {
        let hex = self.0.split_once(':').map_or(self.0.as_str(), |(_, hex)| hex);
        hex.get(..8).unwrap_or(hex)
    }
}

impl fmt::Display for SpecHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn v1(template: &Template) -> String {
    digest("v1", &of_instances(template))
}

/// A template without what changes no instance: where an image came from and how a port is
/// published.
fn of_instances(template: &Template) -> Template {
    let mut template = template.clone();
    template.image.source.clear();
    for port in &mut template.ports {
        port.publish = Publish::default();
    }
    template
}

fn digest(version: &str, value: &(impl Serialize + fmt::Debug)) -> String {
    let text = match serde_json::to_value(value) {
        Ok(mut value) => {
            sort(&mut value);
            value.to_string()
        }
        // Paths that are no UTF-8, which validation refuses.
        Err(_) => format!("{value:?}"),
    };
    format!("{version}:{}", sha256_hex(text.as_bytes()))
}

/// Puts each object's keys in order: how `serde_json` keeps them is for whoever builds the program
/// to choose, by its feature `preserve_order`.
fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if !map.keys().is_sorted() {
                let entries: BTreeMap<String, Value> = std::mem::take(map).into_iter().collect();
                map.extend(entries);
            }
            map.values_mut().for_each(sort);
        }
        Value::Array(list) => list.iter_mut().for_each(sort),
        _ => {}
    }
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let mut value = serde_json::json!({"b": [{"d": 1, "c": 2}], "a": {"z": null, "y": "x"}});
        let text = r#"{"a":{"y":"x","z":null},"b":[{"c":2,"d":1}]}"#;
        sort(&mut value);
        assert_eq!(value.to_string(), text);
    }
}
