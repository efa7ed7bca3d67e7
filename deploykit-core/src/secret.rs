//! Secrets and their versions.

use std::fmt;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, SecretName};

/// The value of a secret. It does not show in `Debug`, is not serialisable, and is wiped from
/// memory when dropped.
///
/// ```
/// use deploykit_core::SecretValue;
/// let value = SecretValue::new("hunter2");
/// assert_eq!(format!("{value:?}"), "SecretValue(…)");
/// assert_eq!(value.expose(), b"hunter2");
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Zeroizing<Vec<u8>>);

impl SecretValue {
    /// A value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The value of an environment variable.
    ///
    /// # Errors
    /// `NotFound` where it is not set.
    pub fn from_env(variable: &str) -> Result<Self> {
        std::env::var_os(variable)
            .map(|value| Self::new(std::os::unix::ffi::OsStringExt::into_vec(value)))
            .ok_or_else(|| {
                let message = format!("the environment variable {variable} is not set");
                Error::new(ErrorKind::NotFound, "read a secret", message)
            })
    }

    /// The value itself: not to be logged, printed or kept.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

/// The secrets of apps: a name has versions 1, 2, 3…, and a version never changes.
///
/// Every method is cancel-safe in this sense: a dropped call has happened wholly or not at all.
#[async_trait]
pub trait SecretStore: Send + Sync {
    /// Adds a version and returns its number.
    async fn put(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64>;

    /// Adds version 1 where there is no version, and returns the newest version's number.
    async fn ensure(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64>;

    /// The value of a version.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` where the store cannot be read
    /// ([`Capabilities::secrets_readable`](crate::Capabilities::secrets_readable)).
    async fn get(&self, app: &AppName, name: &SecretName, version: u64) -> Result<SecretValue>;

    /// The versions of a secret, oldest first; none where it does not exist.
    async fn versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>>;

    /// The secrets of an app with their newest versions.
    async fn list(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>>;

    /// Deletes versions; those that are not there are no error. A number is never given out
    /// twice, so a secret whose every version was deleted goes on counting.
    async fn delete(&self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()>;
}
