//! A secret's value on its way over the supervisor's socket.

use std::fmt;

use deploykit_core::SecretValue;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A value as hexadecimal digits, wiped from memory when dropped and not shown by `Debug`.
pub(crate) struct Wire(Zeroizing<String>);

impl From<&SecretValue> for Wire {
    fn from(value: &SecretValue) -> Self {
        Self(Zeroizing::new(crate::executables::hex(value.expose())))
    }
}

impl Wire {
    /// The value; nothing where these are no hexadecimal digits.
    pub(crate) fn value(&self) -> Option<SecretValue> {
        let (pairs, rest) = self.0.as_bytes().as_chunks::<2>();
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
        let bytes: Option<Zeroizing<Vec<u8>>> = pairs.iter().map(byte).collect::<Option<Vec<u8>>>().map(Zeroizing::new);
        rest.is_empty().then_some(bytes).flatten().map(|bytes| SecretValue::new(bytes.to_vec()))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wire(…)")
    }
}

impl Serialize for Wire {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Wire {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = Self(Zeroizing::new(String::deserialize(deserializer)?));
        // The text itself must not come into the error.
        if wire.value().is_some() { Ok(wire) } else { Err(D::Error::custom("not a secret's value")) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_byte_survives_and_nothing_shows() {
        let value = SecretValue::new((0..=255).collect::<Vec<u8>>());
        let text = serde_json::to_string(&Wire::from(&value)).unwrap();
        let back: Wire = serde_json::from_str(&text).unwrap();
        assert_eq!(back.value().unwrap(), value);
        assert_eq!(format!("{back:?}"), "Wire(…)");
        for bad in ["\"0\"", "\"0g\"", "\"hunter2!\""] {
            let error = serde_json::from_str::<Wire>(bad).unwrap_err().to_string();
            assert!(error.starts_with("not a secret's value"), "{error}");
        }
    }
}
