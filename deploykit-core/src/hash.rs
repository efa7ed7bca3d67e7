//! Hashes of what instances are.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::resolved::{EndpointSpec, Template};

/// `v1:` and a hash over what makes an instance different.
///
/// A found object is compared by [`SpecHash::matches`], with the version that it carries: a newer
/// library leaves what an older one has deployed as it is.
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
        Self(digest("v1", serde_json::to_value(endpoint)))
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
    let value = serde_json::to_value(template).map(|mut value| {
        // Where an image came from and how a port is published change no instance.
        if let Some(image) = value["image"].as_object_mut() {
            image.remove("source");
        }
        for port in value["ports"].as_array_mut().into_iter().flatten() {
            if let Some(port) = port.as_object_mut() {
                port.remove("publish");
            }
        }
        value
    });
    digest("v1", value)
}

/// Keys are sorted: `serde_json::Value` keeps objects in a `BTreeMap`.
fn digest(version: &str, value: serde_json::Result<serde_json::Value>) -> String {
    // The model serialises without fail: its map keys are texts.
    let text = value.map(|v| v.to_string()).unwrap_or_default();
    format!("{version}:{}", sha256_hex(text.as_bytes()))
}

/// The SHA-256 of `bytes` in hexadecimal digits.
pub(crate) fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
