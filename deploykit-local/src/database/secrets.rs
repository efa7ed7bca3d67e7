//! Sealed values: what is stored here cannot be read without the folder's key.

use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{Error, ErrorKind, Result};
use rusqlite::{OptionalExtension as _, Transaction};

use super::{BACKEND, Database, Failure, error};

/// Seals a value as a version.
pub(crate) type Seal<'a> = dyn Fn(u64) -> Result<Vec<u8>> + 'a;

fn newest(tx: &Transaction<'_>, app: &AppName, name: &SecretName) -> rusqlite::Result<Option<u64>> {
    tx.prepare_cached("SELECT max(version) FROM secrets WHERE app = ?1 AND name = ?2")?
        .query_row((app.as_str(), name.as_str()), |row| row.get(0))
}

fn add(tx: &Transaction<'_>, app: &AppName, name: &SecretName, seal: &Seal<'_>) -> Result<u64, Failure> {
    let sql = "INSERT INTO secret_numbers VALUES (?1, ?2, 1)
        ON CONFLICT (app, name) DO UPDATE SET last = last + 1 RETURNING last";
    let version: u64 = tx.prepare_cached(sql)?.query_row((app.as_str(), name.as_str()), |row| row.get(0))?;
    tx.prepare_cached("INSERT INTO secrets VALUES (?1, ?2, ?3, ?4)")?
        .execute((app.as_str(), name.as_str(), version, seal(version)?))?;
    Ok(version)
}

impl Database {
    /// Adds a version; with `only_first`, only where there is none.
    pub(crate) fn add_secret(
        &mut self,
        app: &AppName,
        name: &SecretName,
        only_first: bool,
        seal: &Seal<'_>,
    ) -> Result<u64> {
        self.durable("store a secret", |tx| match newest(tx, app, name)? {
            Some(version) if only_first => Ok(version),
            _ => add(tx, app, name, seal),
        })
    }

    /// The sealed value of a version.
    pub(crate) fn sealed_secret(&self, app: &AppName, name: &SecretName, version: u64) -> Result<Vec<u8>> {
        let found: rusqlite::Result<Option<Vec<u8>>> = self
            .connection
            .prepare_cached("SELECT sealed FROM secrets WHERE app = ?1 AND name = ?2 AND version = ?3")
            .and_then(|mut statement| {
                statement.query_row((app.as_str(), name.as_str(), version), |row| row.get(0)).optional()
            });
        found.map_err(|e| error::database("read a secret", e))?.ok_or_else(|| {
            let message = format!("there is no secret {name}@{version}; set it first");
            Error::new(ErrorKind::NotFound, "read a secret", message).on(BACKEND).with("app", app)
        })
    }

    /// The versions of a secret, oldest first.
    pub(crate) fn secret_versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>> {
        self.connection
            .prepare_cached("SELECT version FROM secrets WHERE app = ?1 AND name = ?2 ORDER BY version")
            .and_then(|mut statement| {
                statement.query_map((app.as_str(), name.as_str()), |row| row.get(0))?.collect()
            })
            .map_err(|e| error::database("list the versions of a secret", e))
    }

    /// The secrets of an app with their newest versions.
    pub(crate) fn secrets(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        let rows: rusqlite::Result<Vec<(String, u64)>> = self
            .connection
            .prepare_cached("SELECT name, max(version) FROM secrets WHERE app = ?1 GROUP BY name ORDER BY name")
            .and_then(|mut s| s.query_map([app.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))?.collect());
        let rows = rows.map_err(|e| error::database("list the secrets", e))?;
        Ok(rows.into_iter().filter_map(|(name, v)| Some((SecretName::new(name).ok()?, v))).collect())
    }

    /// Whether any secret is stored.
    pub(crate) fn has_secrets(&self) -> Result<bool> {
        self.connection
            .query_row("SELECT EXISTS (SELECT 1 FROM secrets)", [], |row| row.get(0))
            .map_err(|e| error::database("look for secrets", e))
    }

    /// Deletes versions; those that are not there are no error.
    pub(crate) fn delete_secrets(&mut self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()> {
        self.durable("delete versions of a secret", |tx| {
            let mut statement =
                tx.prepare_cached("DELETE FROM secrets WHERE app = ?1 AND name = ?2 AND version = ?3")?;
            for version in versions {
                statement.execute((app.as_str(), name.as_str(), version))?;
            }
            Ok(())
        })
    }
}
