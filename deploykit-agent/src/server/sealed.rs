//! Secrets, as far as the agent sees them: values that it cannot read.

use std::collections::BTreeMap;

use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{Error, ErrorKind, Result, SecretValue};
use serde::{Deserialize, Serialize};

use super::keeper::{Keeper, Record};
use crate::control::SealedVersions;
use crate::error::BACKEND;
use crate::wire::SecretText;

/// The versions of one secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Secret {
    /// The newest version that ever was: no number is given out twice.
    last: u64,
    /// Sealed values in hexadecimal digits.
    versions: BTreeMap<u64, Sealed>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(transparent)]
struct Sealed(#[serde(with = "text")] Vec<u8>);

mod text {
    use super::*;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(sealed: &[u8], to: S) -> Result<S::Ok, S::Error> {
        SecretText::from(&SecretValue::new(sealed)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        Ok(SecretText::deserialize(from)?.value().expose().to_vec())
    }
}

impl Keeper {
    /// The versions of a secret, and the key that seals them.
    pub(super) fn secret_versions(
        &mut self,
        app: &AppName,
        name: &SecretName,
    ) -> Result<SealedVersions> {
        if self.record(app)?.is_none() {
            // The key has to be named before the first value comes.
            self.change(app, |_| Ok(()))?;
        }
        let Some(record) = self.record(app)? else { return Ok(SealedVersions::default()) };
        let secret = record.secrets.get(name).cloned().unwrap_or_default();
        Ok(SealedVersions {
            key: record.id.clone(),
            key_in_use: record.secrets.values().any(|secret| !secret.versions.is_empty()),
            last: secret.last,
            versions: secret.versions.into_keys().collect(),
        })
    }

    pub(super) fn list_secrets(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        let secrets = self.record(app)?.into_iter().flat_map(|record| &record.secrets);
        let newest =
            |secret: &Secret| secret.versions.last_key_value().map(|(version, _)| *version);
        Ok(secrets.filter_map(|(name, secret)| Some((name.clone(), newest(secret)?))).collect())
    }

    pub(super) fn put_sealed(
        &mut self,
        app: &AppName,
        name: &SecretName,
        version: u64,
        sealed: &SecretText,
    ) -> Result<()> {
        let sealed = Sealed(sealed.value().expose().to_vec());
        let there = |record: &Record| record.secrets.get(name)?.versions.get(&version).cloned();
        if self.record(app)?.and_then(there).is_some_and(|found| found.0 == sealed.0) {
            return Ok(());
        }
        self.change(app, |record| {
            let secret = record.secrets.entry(name.clone()).or_default();
            if version != secret.last + 1 {
                let message = format!("{name} has got a version {} meanwhile", secret.last);
                let error = Error::new(ErrorKind::Conflict, "store a secret", message);
                return Err(error.on(BACKEND).with("app", app));
            }
            secret.last = version;
            secret.versions.insert(version, sealed);
            Ok(())
        })
    }

    pub(super) fn get_sealed(
        &self,
        app: &AppName,
        name: &SecretName,
        version: u64,
    ) -> Result<SecretText> {
        let secret = self.record(app)?.and_then(|record| record.secrets.get(name));
        let sealed = secret.and_then(|secret| secret.versions.get(&version)).ok_or_else(|| {
            let message = format!("there is no secret {name}@{version}; set it first");
            Error::new(ErrorKind::NotFound, "read a secret", message).on(BACKEND).with("app", app)
        })?;
        Ok(SecretText::from(&SecretValue::new(sealed.0.clone())))
    }

    pub(super) fn delete_secrets(
        &mut self,
        app: &AppName,
        name: &SecretName,
        versions: &[u64],
    ) -> Result<()> {
        let secret = self.record(app)?.and_then(|record| record.secrets.get(name));
        if !secret.is_some_and(|secret| versions.iter().any(|v| secret.versions.contains_key(v))) {
            return Ok(());
        }
        self.change(app, |record| {
            if let Some(secret) = record.secrets.get_mut(name) {
                secret.versions.retain(|version, _| !versions.contains(version));
            }
            Ok(())
        })
    }
}
