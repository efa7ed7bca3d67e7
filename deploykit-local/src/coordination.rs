//! Locks between the programs of one machine, in an SQLite file.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::{Coordinator, Error, ErrorKind, Lock, LockEntry, LockStore, Locks, Result};
use futures_util::stream::BoxStream;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use crate::error::{self, BACKEND};

/// How often those who wait look.
const LOOK: Duration = Duration::from_millis(50);

const SCHEMA: &str = "CREATE TABLE IF NOT EXISTS locks (
    name TEXT PRIMARY KEY, token INTEGER NOT NULL, holder TEXT,
    beat INTEGER NOT NULL, ttl_ms INTEGER NOT NULL
) WITHOUT ROWID";

/// A [`Coordinator`] for the programs of one machine: an SQLite file that all of them open. Clones
/// are the same.
///
/// A holder counts up in the file while it lives; who sees nothing counted for the holder's time to
/// live takes over. Waiters look 20 times a second, and get it in no order.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> deploykit_core::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// use std::time::Duration;
/// use deploykit_core::Coordinator;
/// use deploykit_local::Coordination;
///
/// let coordination = Coordination::open(folder.path().join("locks.sqlite")).await?;
/// let lock = coordination.lock("reports", "me", Duration::from_secs(10)).await?;
/// println!("what is written carries the token {}", lock.token());
/// lock.release().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Coordination(Locks<LockFile>);

#[derive(Debug)]
struct LockFile(Arc<Mutex<Connection>>);

impl Coordination {
    /// Opens the file, and makes it where it is missing.
    ///
    /// # Errors
    /// `Unauthorized` where it cannot be written, `Corrupt` where it is no database.
    pub async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        blocking("open the file of locks", move || {
            let connection = Connection::open(path)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.execute(SCHEMA, ())?;
            Ok(Self(Locks::new(LockFile(Arc::new(Mutex::new(connection))))))
        })
        .await
    }
}

impl LockFile {
    async fn with<T: Send + 'static>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let connection = self.0.clone();
        blocking(operation, move || {
            call(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(
    operation: &'static str,
    call: impl FnOnce() -> rusqlite::Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(call).await;
    let done = done.map_err(|_| {
        Error::new(ErrorKind::Failed, operation, "the runtime is shutting down").on(BACKEND)
    })?;
    done.map_err(|error| error::database(operation, error))
}

fn row(connection: &Connection, name: &str) -> rusqlite::Result<Option<LockEntry>> {
    let sql = "SELECT token, holder, beat, ttl_ms FROM locks WHERE name = ?1";
    connection
        .prepare_cached(sql)?
        .query_row([name], |row| {
            let ttl = Duration::from_millis(row.get(3)?);
            Ok(LockEntry { token: row.get(0)?, holder: row.get(1)?, beat: row.get(2)?, ttl })
        })
        .optional()
}

#[async_trait]
impl LockStore for LockFile {
    fn pause(&self) -> Duration {
        LOOK
    }

    async fn look(&self, name: &str) -> Result<Option<LockEntry>> {
        let name = name.to_owned();
        self.with("look at a lock", move |connection| row(connection, &name)).await
    }

    async fn take(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        expired: Option<&LockEntry>,
    ) -> Result<Option<u64>> {
        let (name, holder, expired) = (name.to_owned(), holder.to_owned(), expired.cloned());
        self.with("ask for a lock", move |connection| {
            let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let found = row(&change, &name)?;
            if found.as_ref().is_some_and(|seen| seen.holder.is_some()) && found != expired {
                return Ok(None);
            }
            let token = found.map_or(0, |seen| seen.token) + 1;
            let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 1);
            change.execute(
                "INSERT OR REPLACE INTO locks VALUES (?1, ?2, ?3, 0, ?4)",
                (&name, token, &holder, ttl),
            )?;
            change.commit()?;
            Ok(Some(token))
        })
        .await
    }

    async fn beat(&self, name: &str, token: u64) -> Result<bool> {
        let name = name.to_owned();
        self.with("keep a lock", move |connection| {
            let sql = "UPDATE locks SET beat = beat + 1 \
                       WHERE name = ?1 AND token = ?2 AND holder IS NOT NULL";
            Ok(connection.execute(sql, (name, token))? == 1)
        })
        .await
    }

    async fn give_back(&self, name: &str, token: u64) -> Result<()> {
        let name = name.to_owned();
        self.with("release a lock", move |connection| {
            let sql = "UPDATE locks SET holder = NULL WHERE name = ?1 AND token = ?2";
            connection.execute(sql, (name, token)).map(drop)
        })
        .await
    }
}

#[async_trait]
impl Coordinator for Coordination {
    /// Cancel-safe: a lock that is taken while nobody waits any more ends by its time to live.
    async fn lock(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lock>> {
        self.0.lock(name, holder, ttl).await
    }

    async fn holder(&self, name: &str) -> Result<BoxStream<'static, Result<Option<String>>>> {
        self.0.holder(name).await
    }
}
