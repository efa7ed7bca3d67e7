//! A secret's value on its way between two programs.

use std::fmt;

use deploykit_core::SecretValue;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// A value as hexadecimal digits, wiped from memory when dropped and not shown by `Debug`.
pub struct SecretText(Zeroizing<String>);

impl From<&SecretValue> for SecretText {
    fn from(value: &SecretValue) -> Self {
        let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or_default();
        // Not grown: what is left behind would not be wiped.
        let mut text = Zeroizing::new(String::with_capacity(value.expose().len() * 2));
        text.extend(value.expose().iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
        Self(text)
    }
}

impl SecretText {
    /// The value.
    pub fn value(&self) -> SecretValue {
        // Known to be whole since it was read.
        SecretValue::new(bytes(&self.0).unwrap_or_default().to_vec())
    }
}

fn bytes(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    let mut bytes = Zeroizing::new(Vec::with_capacity(pairs.len()));
    for pair in pairs {
        bytes.push(byte(pair)?);
    }
    rest.is_empty().then_some(bytes)
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl Serialize for SecretText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        // The text itself must not come into the error.
        if bytes(&text).is_some() {
            Ok(Self(text))
        } else {
            Err(D::Error::custom("not a secret's value"))
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_byte_survives_and_nothing_shows() {
        let value = SecretValue::new((0..=255).collect::<Vec<u8>>());
        let text = serde_json::to_string(&SecretText::from(&value)).unwrap();
        let back: SecretText = serde_json::from_str(&text).unwrap();
        assert_eq!(back.value(), value);
        assert_eq!(format!("{back:?}"), "SecretText(…)");
        for bad in ["\"0\"", "\"0g\"", "\"hunter2!\""] {
            let error = serde_json::from_str::<SecretText>(bad).unwrap_err().to_string();
            assert!(error.starts_with("not a secret's value"), "{error}");
        }
    }
}
