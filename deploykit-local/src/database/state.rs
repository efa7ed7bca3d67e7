//! Values with versions.

use deploykit_core::model::AppName;
use deploykit_core::{Entry, Error, ErrorKind, Expected, Fence, Result};
use rusqlite::{OptionalExtension as _, Row, Transaction};

use super::{BACKEND, Database, Failure, error, fenced};

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry { key: row.get(0)?, value: row.get(1)?, version: row.get(2)? })
}

fn version_of(tx: &Transaction<'_>, app: &AppName, key: &str) -> rusqlite::Result<Option<u64>> {
    tx.prepare_cached("SELECT version FROM state WHERE app = ?1 AND key = ?2")?
        .query_row((app.as_str(), key), |row| row.get(0))
        .optional()
}

fn conflict(fence: &Fence, key: &str, found: Option<u64>) -> Failure {
    let message = match found {
        Some(version) => {
            format!("`{key}` was changed meanwhile (it is at version {version}); read it again")
        }
        None => format!("`{key}` is gone; read it again"),
    };
    Error::new(ErrorKind::Conflict, "write the state", message)
        .on(BACKEND)
        .with("app", &fence.app)
        .into()
}

impl Database {
    /// The apps that anything is stored or hosted of.
    pub(crate) fn apps(&self) -> Result<Vec<AppName>> {
        let sql = "SELECT app FROM state UNION SELECT app FROM instances UNION SELECT app FROM endpoints ORDER BY 1";
        let rows: rusqlite::Result<Vec<String>> = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect());
        let names = rows.map_err(|e| error::database("list the apps", e))?;
        Ok(names.into_iter().filter_map(|name| AppName::new(name).ok()).collect())
    }

    /// The value under a key.
    pub(crate) fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        let sql = "SELECT key, value, version FROM state WHERE app = ?1 AND key = ?2";
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.query_row((app.as_str(), key), entry).optional())
            .map_err(|e| error::database("read the state", e))
    }

    /// The keys that begin with `prefix`.
    pub(crate) fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        let sql =
            "SELECT key FROM state WHERE app = ?1 AND substr(key, 1, length(?2)) = ?2 ORDER BY key";
        self.connection
            .prepare_cached(sql)
            .and_then(|mut statement| {
                statement.query_map((app.as_str(), prefix), |row| row.get(0))?.collect()
            })
            .map_err(|e| error::database("list the state", e))
    }

    /// Writes a value, and returns its new version.
    pub(crate) fn put(
        &mut self,
        fence: &Fence,
        key: &str,
        value: &str,
        expected: Expected,
    ) -> Result<u64> {
        self.change("write the state", |tx| {
            fenced(tx, fence)?;
            let found = version_of(tx, &fence.app, key)?;
            if found
                != match expected {
                    Expected::Absent => None,
                    Expected::Version(version) => Some(version),
                }
            {
                return Err(conflict(fence, key, found));
            }
            // Versions are never used twice, not even by a value that was deleted in between.
            let version: u64 =
                tx.query_row("UPDATE versions SET last = last + 1 RETURNING last", [], |row| {
                    row.get(0)
                })?;
            tx.prepare_cached("INSERT OR REPLACE INTO state VALUES (?1, ?2, ?3, ?4)")?
                .execute((fence.app.as_str(), key, value, version))?;
            Ok(version)
        })
    }

    /// Deletes the value of that version; one that is not there is no error.
    pub(crate) fn delete(&mut self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        self.change("delete from the state", |tx| {
            fenced(tx, fence)?;
            match version_of(tx, &fence.app, key)? {
                Some(found) if found != version => Err(conflict(fence, key, Some(found))),
                _ => {
                    tx.prepare_cached("DELETE FROM state WHERE app = ?1 AND key = ?2")?
                        .execute((fence.app.as_str(), key))?;
                    Ok(())
                }
            }
        })
    }
}
