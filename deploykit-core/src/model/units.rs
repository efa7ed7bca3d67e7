//! Quantities with units.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {what}")]
pub struct UnitError {
    text: String,
    what: &'static str,
}

const CPU: &str = "an amount of CPU; write cores like 0.5 or thousandths like 500m";
const BYTES: &str = "an amount of bytes; write a whole number with B, k, M, G, Ki, Mi or Gi";
const DURATION: &str = "a duration; write it like 500ms, 10s or 1m 30s";
const PERCENT: &str = "a share; write a whole percentage from 1% to 100%";

/// An amount of CPU time, in thousandths of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", extend("type" = ["string", "number"]))]
pub struct Cpu(u32);

impl Cpu {
    /// That many thousandths of a core; nothing where it is 0.
    pub fn millis(millis: u32) -> Option<Self> {
        (millis > 0).then_some(Self(millis))
    }

    /// Thousandths of a core.
    pub fn as_millis(self) -> u32 {
        self.0
    }
}

impl FromStr for Cpu {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError { text: text.to_owned(), what: CPU };
        let millis = match text.strip_suffix('m') {
            Some(digits) => digits.parse::<u32>().ok(),
            None => text
                .parse::<f64>()
                .ok()
                .map(|cores| cores * 1000.0)
                .filter(|m| m.fract() == 0.0 && (1.0..=4_000_000.0).contains(m))
                .map(|m| m as u32),
        };
        millis.and_then(Self::millis).ok_or_else(fail)
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", extend("type" = ["string", "integer"]))]
pub struct Bytes(u64);

impl Bytes {
    /// That many bytes; nothing where it is 0.
    pub fn new(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Self(bytes))
    }

    /// The number of bytes.
    pub fn get(self) -> u64 {
        self.0
    }
}

const SCALES: [(&str, u64); 7] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("B", 1),
];

impl FromStr for Bytes {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (digits, scale) = SCALES
            .iter()
            .find_map(|(suffix, scale)| text.strip_suffix(suffix).map(|d| (d, *scale)))
            .unwrap_or((text, 1));
        digits
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(scale))
            .and_then(Self::new)
            .ok_or_else(|| UnitError { text: text.to_owned(), what: BYTES })
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let binary = SCALES[..3].iter().rev().find(|(_, scale)| self.0.is_multiple_of(*scale));
        match binary {
            Some((suffix, scale)) => write!(f, "{}{suffix}", self.0 / scale),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A share of instances, from 1 % to 100 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "String", extend("pattern" = "^([1-9][0-9]?|100)%$"))]
pub struct Percent(u8);

impl Percent {
    /// That share; nothing where it is not in 1 to 100.
    pub fn new(percent: u8) -> Option<Self> {
        (1..=100).contains(&percent).then_some(Self(percent))
    }

    /// The whole percentage.
    pub fn get(self) -> u8 {
        self.0
    }

    /// How many of `total` instances this is; nothing where that is not a whole number.
    pub fn of(self, total: u32) -> Option<u32> {
        let hundredths = u64::from(total) * u64::from(self.0);
        hundredths.is_multiple_of(100).then_some((hundredths / 100) as u32)
    }
}

impl FromStr for Percent {
    type Err = UnitError;
    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.strip_suffix('%')
            .and_then(|digits| digits.parse().ok())
            .and_then(Self::new)
            .ok_or_else(|| UnitError { text: text.to_owned(), what: PERCENT })
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// A text, or a plain number as its text, as people write quantities.
fn text_of<'de, D: Deserializer<'de>>(d: D, wanted: &'static str) -> Result<String, D::Error> {
    struct Text(&'static str);
    impl Visitor<'_> for Text {
        type Value = String;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
        fn visit_u64<E>(self, n: u64) -> Result<String, E> {
            Ok(n.to_string())
        }
        fn visit_i64<E>(self, n: i64) -> Result<String, E> {
            Ok(n.to_string())
        }
        fn visit_f64<E>(self, n: f64) -> Result<String, E> {
            Ok(n.to_string())
        }
        fn visit_str<E>(self, text: &str) -> Result<String, E> {
            Ok(text.to_owned())
        }
    }
    d.deserialize_any(Text(wanted))
}

macro_rules! text_serde {
    ($($name:ident: $what:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = text_of(deserializer, $what)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
text_serde!(Cpu: CPU, Bytes: BYTES, Percent: PERCENT);

/// Durations as people write them: `500ms`, `10s`, `1m 30s`.
pub(crate) mod duration {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        let text = text_of(d, DURATION)?;
        let fail = |_| serde::de::Error::custom(UnitError { text: text.clone(), what: DURATION });
        humantime::parse_duration(&text).map_err(fail)
    }
}

/// The same for a duration that may be absent.
pub(crate) mod duration_option {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(v: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match v {
            Some(value) => duration::serialize(value, s),
            None => s.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Duration>, D::Error> {
        #[derive(Deserialize)]
        struct Wrapped(#[serde(with = "duration")] Duration);
        Ok(Option::<Wrapped>::deserialize(d)?.map(|w| w.0))
    }
}
