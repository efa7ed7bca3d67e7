//! Locks between the programs of one machine, in an SQLite file.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::{Coordinator, Error, ErrorKind, Lock, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

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
pub struct Coordination(Arc<Mutex<Connection>>);

/// A row, as far as it says whether its holder lives.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    token: u64,
    holder: Option<String>,
    beat: u64,
    ttl: Duration,
}

/// A row, and since when it has not changed, by this program's clock.
#[derive(Default)]
struct Watched(Option<(Seen, Instant)>);

impl Watched {
    /// Whether its holder, if there is one, has not been heard of for its time to live.
    fn expired(&mut self, seen: &Seen) -> bool {
        match &self.0 {
            Some((before, since)) if before == seen => since.elapsed() >= seen.ttl,
            _ => {
                self.0 = Some((seen.clone(), Instant::now()));
                false
            }
        }
    }
}

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
            Ok(Self(Arc::new(Mutex::new(connection))))
        })
        .await
    }

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

    async fn look(&self, name: &str) -> Result<Option<Seen>> {
        let name = name.to_owned();
        self.with("look at a lock", move |connection| row(connection, &name)).await
    }

    /// Takes the lock where nobody has it, or where `expired` is still all that is known of who
    /// does; its token.
    async fn take(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        expired: Option<Seen>,
    ) -> Result<Option<u64>> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
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

    /// Counts up; false where somebody else has taken over.
    async fn beat(&self, name: String, token: u64) -> Result<bool> {
        self.with("keep a lock", move |connection| {
            let sql = "UPDATE locks SET beat = beat + 1 \
                       WHERE name = ?1 AND token = ?2 AND holder IS NOT NULL";
            Ok(connection.execute(sql, (name, token))? == 1)
        })
        .await
    }

    async fn give_back(&self, name: String, token: u64) -> Result<()> {
        self.with("release a lock", move |connection| {
            let sql = "UPDATE locks SET holder = NULL WHERE name = ?1 AND token = ?2";
            connection.execute(sql, (name, token)).map(drop)
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

fn row(connection: &Connection, name: &str) -> rusqlite::Result<Option<Seen>> {
    let sql = "SELECT token, holder, beat, ttl_ms FROM locks WHERE name = ?1";
    connection
        .prepare_cached(sql)?
        .query_row([name], |row| {
            let ttl = Duration::from_millis(row.get(3)?);
            Ok(Seen { token: row.get(0)?, holder: row.get(1)?, beat: row.get(2)?, ttl })
        })
        .optional()
}

#[async_trait]
impl Coordinator for Coordination {
    /// Cancel-safe: a lock that is taken while nobody waits any more ends by its time to live.
    async fn lock(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lock>> {
        let mut watched = Watched::default();
        loop {
            let asked = Instant::now();
            let seen = self.look(name).await?;
            let free = seen.as_ref().is_none_or(|seen| seen.holder.is_none());
            let expired = seen.as_ref().is_some_and(|seen| watched.expired(seen));
            if (free || expired)
                && let Some(token) = self.take(name, holder, ttl, seen).await?
            {
                return Ok(Box::new(Held::start(self.clone(), name, token, ttl, asked)));
            }
            sleep(LOOK.min(ttl / 4)).await;
        }
    }

    async fn holder(&self, name: &str) -> Result<BoxStream<'static, Result<Option<String>>>> {
        let state = (self.clone(), name.to_owned(), Watched::default(), None);
        Ok(stream::unfold(Some(state), |state| async {
            let (coordination, name, mut watched, mut last) = state?;
            loop {
                let seen = match coordination.look(&name).await {
                    Ok(seen) => seen,
                    Err(error) => return Some((Err(error), None)),
                };
                let living = seen.filter(|seen| !watched.expired(seen));
                let holder = living.and_then(|seen| seen.holder);
                if last.as_ref() != Some(&holder) {
                    last = Some(holder.clone());
                    return Some((Ok(holder), Some((coordination, name, watched, last))));
                }
                sleep(LOOK).await;
            }
        })
        .boxed())
    }
}

struct Held {
    token: u64,
    lost: watch::Receiver<bool>,
    keeping: JoinHandle<Result<()>>,
    end: DropGuard,
}

impl Held {
    /// Keeps the lock until it is lost or not wanted any more.
    fn start(
        coordination: Coordination,
        name: &str,
        token: u64,
        ttl: Duration,
        asked: Instant,
    ) -> Self {
        let (sender, lost) = watch::channel(false);
        let end = CancellationToken::new();
        let (unwanted, name) = (end.clone(), name.to_owned());
        let keeping = tokio::spawn(async move {
            let mut until = asked + ttl;
            loop {
                tokio::select! {
                    () = unwanted.cancelled() => break,
                    () = sleep(ttl / 3) => {}
                }
                let sent = Instant::now();
                match timeout_at(until, coordination.beat(name.clone(), token)).await {
                    Ok(Ok(true)) => until = sent + ttl,
                    Ok(Err(error)) if Instant::now() < until => {
                        tracing::debug!(%error, "a lock is not kept; trying again");
                    }
                    _ => {
                        sender.send_replace(true);
                        break;
                    }
                }
            }
            coordination.give_back(name, token).await
        });
        Self { token, lost, keeping, end: end.drop_guard() }
    }
}

#[async_trait]
impl Lock for Held {
    fn token(&self) -> u64 {
        self.token
    }

    async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that nothing keeps it any more: then it is lost, too.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    async fn release(self: Box<Self>) -> Result<()> {
        drop(self.end);
        self.keeping.await.unwrap_or(Ok(()))
    }
}
