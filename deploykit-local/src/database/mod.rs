//! The SQLite file: one writer, the supervisor. What must be checked together is written together.
//!
//! In WAL mode with `synchronous=NORMAL` a commit costs no fsync: it survives the death of the
//! supervisor, and the file stays whole after a power cut, which may lose the last commits.
//! Secrets are written with [`Database::durable`], which does wait for the disk.

mod endpoints;
mod instances;
mod leases;
mod secrets;
mod state;
#[cfg(test)]
mod tests;

use std::path::Path;

use deploykit_core::{Error, ErrorKind, Fence, Result};
use rusqlite::{Connection, OptionalExtension as _, Transaction, TransactionBehavior};

use crate::error::{self, BACKEND};

pub(crate) use endpoints::EndpointRow;
pub(crate) use instances::{InstanceRow, Phase};

/// The layout that this program writes.
const VERSION: i64 = 1;
/// Says whose file it is: "dkit".
const APPLICATION: i64 = 0x646b_6974;

const SCHEMA: &str = "
CREATE TABLE folder (id TEXT NOT NULL);
CREATE TABLE leases (
    app TEXT PRIMARY KEY, epoch INTEGER NOT NULL, holder TEXT, ttl_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE state (
    app TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, version INTEGER NOT NULL, PRIMARY KEY (app, key)
) WITHOUT ROWID;
CREATE TABLE versions (last INTEGER NOT NULL);
INSERT INTO versions VALUES (0);
CREATE TABLE instances (
    id TEXT PRIMARY KEY, app TEXT NOT NULL, spec TEXT NOT NULL, phase TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE endpoints (
    app TEXT NOT NULL, service TEXT NOT NULL, spec TEXT NOT NULL, ports TEXT NOT NULL, routed TEXT NOT NULL,
    PRIMARY KEY (app, service)
) WITHOUT ROWID;
CREATE TABLE secrets (
    app TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, sealed BLOB NOT NULL,
    PRIMARY KEY (app, name, version)
) WITHOUT ROWID;
CREATE TABLE secret_numbers (
    app TEXT NOT NULL, name TEXT NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (app, name)
) WITHOUT ROWID;
";

/// The open file.
#[derive(Debug)]
pub(crate) struct Database {
    connection: Connection,
    folder_id: String,
}

impl Database {
    /// Opens the file at `path`, and makes it where it is missing.
    ///
    /// # Errors
    /// `Corrupt` where it is damaged, somebody else's or of a newer version: it is left as it is.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let refused = |e: rusqlite::Error| {
            let error = error::database("open the state file", e);
            if error.kind() == ErrorKind::Corrupt {
                damaged(path, "it is no database")
            } else {
                error
            }
        };
        let connection = Connection::open(path).map_err(refused)?;
        connection
            .execute_batch(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA cache_size = -512; PRAGMA secure_delete = ON;
                 PRAGMA temp_store = MEMORY;",
            )
            .map_err(refused)?;
        let pragma =
            |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let version = pragma("user_version").map_err(refused)?;
        let application = pragma("application_id").map_err(refused)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(refused)?;
        if version > VERSION {
            let message = format!(
                "it was written by a newer version of DeployKit (layout {version}; this program knows {VERSION}): \
                 use that version, or another folder"
            );
            return Err(corrupt(path, message));
        }
        if tables > 0 && application != APPLICATION {
            return Err(damaged(path, "it is another program's database"));
        }
        let check: String =
            connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(refused)?;
        if check != "ok" {
            return Err(damaged(path, &check));
        }
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;")
            .map_err(refused)?;
        let mut database = Self { connection, folder_id: String::new() };
        if tables == 0 {
            database.create()?;
        }
        let id =
            database.connection.query_row("SELECT id FROM folder", [], |row| row.get(0)).optional();
        database.folder_id =
            id.map_err(refused)?.ok_or_else(|| damaged(path, "it has lost its id"))?;
        Ok(database)
    }

    fn create(&mut self) -> Result<()> {
        let id = format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..));
        self.durable("make the state file", |tx| {
            tx.execute_batch(SCHEMA)?;
            tx.execute("INSERT INTO folder VALUES (?1)", [&id])?;
            tx.pragma_update(None, "application_id", APPLICATION)?;
            tx.pragma_update(None, "user_version", VERSION)?;
            Ok(())
        })
    }

    /// What tells this folder's processes and key from any other's.
    pub(crate) fn folder_id(&self) -> &str {
        &self.folder_id
    }

    /// Whether nothing at all is stored, so that the file may go. Numbers that must not be given
    /// out twice count as stored while their app has anything else.
    pub(crate) fn is_empty(&self) -> Result<bool> {
        let sql = "SELECT (SELECT count(*) FROM state) + (SELECT count(*) FROM instances)
            + (SELECT count(*) FROM endpoints) + (SELECT count(*) FROM secrets)";
        let count = self.connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        Ok(count.map_err(|e| error::database("look whether anything is stored", e))? == 0)
    }

    /// Runs `change` as one transaction.
    fn change<T>(
        &mut self,
        operation: &str,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let run = |connection: &mut Connection| {
            let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let value = change(&tx)?;
            tx.commit()?;
            Ok(value)
        };
        run(&mut self.connection).map_err(|failure: Failure| failure.into_error(operation))
    }

    /// Runs `change` as one transaction that is on the disk when this returns.
    fn durable<T>(
        &mut self,
        operation: &str,
        change: impl FnOnce(&Transaction<'_>) -> Result<T, Failure>,
    ) -> Result<T> {
        let failed = |e| error::database(operation, e);
        self.connection.pragma_update(None, "synchronous", "FULL").map_err(failed)?;
        let result = self.change(operation, change);
        self.connection.pragma_update(None, "synchronous", "NORMAL").map_err(failed)?;
        result
    }

    /// Refuses a fence that is not of the newest epoch. The reconciler may call this alone before
    /// what changes no row.
    pub(crate) fn check_fence(&mut self, fence: &Fence) -> Result<()> {
        self.change("check the deploy lock", |tx| fenced(tx, fence))
    }
}

/// Why a transaction was rolled back.
enum Failure {
    Sql(rusqlite::Error),
    Refused(Box<Error>),
    /// A stored value that cannot be read.
    Unreadable(String),
}

impl Failure {
    fn into_error(self, operation: &str) -> Error {
        match self {
            Self::Sql(e) => error::database(operation, e),
            Self::Refused(e) => *e,
            Self::Unreadable(what) => Error::new(
                ErrorKind::Corrupt,
                operation,
                format!(
                    "a stored value cannot be read: {what}; the state file was damaged or edited"
                ),
            )
            .on(BACKEND),
        }
    }
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Refused(Box::new(error))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

/// Refuses within a transaction what comes from a deployer that has lost its lock.
fn fenced(tx: &Transaction<'_>, fence: &Fence) -> Result<(), Failure> {
    let newest: Option<(u64, Option<String>)> = tx
        .prepare_cached("SELECT epoch, holder FROM leases WHERE app = ?1")?
        .query_row([fence.app.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    let message = match newest {
        Some((epoch, _)) if epoch == fence.epoch => return Ok(()),
        Some((_, Some(holder))) => {
            format!("the deploy lock was taken over by {holder}; run it again")
        }
        Some((_, None)) => "the deploy lock was taken over; run it again".to_owned(),
        None => "the deploy lock is not held; run it again".to_owned(),
    };
    let error = Error::new(ErrorKind::Conflict, "change the app", message);
    Err(error.on(BACKEND).with("app", &fence.app).with("epoch", fence.epoch).into())
}

fn corrupt(path: &Path, message: String) -> Error {
    let error = Error::new(ErrorKind::Corrupt, "open the state file", message);
    error.on(BACKEND).with("path", path.display())
}

fn damaged(path: &Path, what: &str) -> Error {
    corrupt(
        path,
        format!(
            "it is damaged ({what}) and was left as it is: put a copy of it back, or move it away to begin anew \
             (instances that run are then ended by hand; volumes stay)"
        ),
    )
}
