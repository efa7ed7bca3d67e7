//! Names, parsed once: an invalid one cannot be constructed.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name in bytes: what a DNS label holds ([RFC 1035 2.3.4](https://www.rfc-editor.org/rfc/rfc1035#section-2.3.4)),
/// less the room that backends need for suffixes.
pub const MAX_NAME: usize = 40;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not a name: {why}; use 1 to {MAX_NAME} of a-z, 0-9 and -, beginning with a letter and not ending in -"
)]
pub struct NameError {
    text: String,
    why: String,
}

impl From<NameError> for crate::error::Error {
    fn from(error: NameError) -> Self {
        let problem = crate::error::Problem::new("", error.to_string(), "");
        Self::invalid("read a name", Vec::from([problem]))
    }
}

pub(super) fn check(text: &str) -> Result<(), NameError> {
    let fail = |why: String| Err(NameError { text: text.to_owned(), why });
    if text.is_empty() {
        return fail("it is empty".into());
    }
    if text.len() > MAX_NAME {
        return fail(format!("it has {} characters", text.chars().count()));
    }
    if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        return fail(format!("it contains `{}`", bad.escape_debug()));
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        return fail("it does not begin with a letter".into());
    }
    if text.ends_with('-') {
        return fail("it ends in `-`".into());
    }
    Ok(())
}

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        ///
        /// 1 to 40 of `a-z`, `0-9` and `-`, beginning with a letter, not ending in `-`.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("pattern" = "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$"))]
        pub struct $name(String);

        impl $name {
            /// Parses a name.
            ///
            /// # Errors
            /// [`NameError`] where the text breaks the rule above.
            pub fn new(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }
    )*};
}

names! {
    /// The name of an application.
    AppName;
    /// The name of a service or a job: the two share one namespace within an app.
    ServiceName;
    /// The name of a network within an app.
    NetworkName;
    /// The name of a volume within an app.
    VolumeName;
    /// The name of a secret within an app.
    SecretName;
    /// The name of a config within an app.
    ConfigName;
    /// The name of a port within a service.
    PortName;
    /// The name of a raw object within an app.
    RawName;
}

impl ServiceName {
    /// The name as it stands in environment variables: `user-db` is `USER_DB`.
    pub fn env_prefix(&self) -> String {
        env_name(self.as_str())
    }
}

/// A name as it stands in an environment variable.
pub(crate) fn env_name(name: &str) -> String {
    name.to_ascii_uppercase().replace('-', "_")
}
