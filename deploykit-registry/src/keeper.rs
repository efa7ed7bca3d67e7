//! Keeps registrations alive, the same way on every server: one task for each client and time to
//! live holds what is registered, renews the lease (or session) that all of it is under, and
//! writes all of it again when that was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::{Error, ErrorKind, Registration, Result};
use tokio::sync::{mpsc, oneshot};

/// How many registrations are written, or removed, at once at most.
const BATCH: usize = 1000;

/// Until what failed is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// A lease of a server that entries are written under: they vanish with it.
#[async_trait]
pub(crate) trait Leased: Send + 'static {
    /// Begins a new one where the one before is not known to live.
    async fn begin(&mut self) -> Result<()>;

    /// Writes entries under it, all at once.
    async fn write(&mut self, entries: &[(String, Vec<u8>)]) -> Result<()>;

    /// Removes entries, all at once, where they are still under this lease.
    async fn remove(&mut self, keys: &[String]) -> Result<()>;

    /// Waits until it wants to be renewed. Cancel-safe.
    async fn due(&mut self);

    /// Renews it; false when it was lost.
    async fn renew(&mut self) -> Result<bool>;

    /// Ends it, with all that is under it.
    async fn end(&mut self);
}

enum Command {
    Put { key: String, number: u64, value: Vec<u8>, reply: Reply },
    Remove { key: String, number: u64, reply: Option<Reply> },
}

type Reply = oneshot::Sender<Result<()>>;

/// The handle of the task. The task ends when all handles and registrations are gone.
#[derive(Clone)]
pub(crate) struct Keeper {
    commands: mpsc::UnboundedSender<Command>,
    numbers: Arc<AtomicU64>,
}

impl Keeper {
    pub(crate) fn start(leased: impl Leased) -> Self {
        let (commands, receiver) = mpsc::unbounded_channel();
        let task =
            Task { leased, live: false, entries: BTreeMap::new(), removing: BTreeSet::new() };
        tokio::spawn(task.run(receiver));
        Self { commands, numbers: Arc::default() }
    }

    /// Registers. Dropping the future takes it back.
    pub(crate) async fn put(&self, key: String, value: Vec<u8>) -> Result<Box<dyn Registration>> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let (reply, written) = oneshot::channel();
        let put = Command::Put { key: key.clone(), number, value, reply };
        let kept = Kept { key, number, commands: self.commands.clone(), ended: false };
        self.commands.send(put).map_err(|_| gone("register"))?;
        written.await.map_err(|_| gone("register"))??;
        Ok(Box::new(kept))
    }
}

fn gone(operation: &str) -> Error {
    Error::new(ErrorKind::Failed, operation, "the runtime that kept registrations has ended")
}

struct Kept {
    key: String,
    number: u64,
    commands: mpsc::UnboundedSender<Command>,
    ended: bool,
}

impl Kept {
    fn end(&mut self, reply: Option<Reply>) {
        if !std::mem::replace(&mut self.ended, true) {
            let key = std::mem::take(&mut self.key);
            let _ = self.commands.send(Command::Remove { key, number: self.number, reply });
        }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.end(None);
    }
}

#[async_trait]
impl Registration for Kept {
    async fn deregister(mut self: Box<Self>) -> Result<()> {
        let (reply, removed) = oneshot::channel();
        self.end(Some(reply));
        removed.await.map_err(|_| gone("deregister"))?
    }
}

struct Task<L> {
    leased: L,
    /// Whether the lease lives, as far as is known, and everything is written under it.
    live: bool,
    /// Each with the number of its registration: a newer one of the same key takes over.
    entries: BTreeMap<String, (u64, Vec<u8>)>,
    /// What is to be removed and may still be there.
    removing: BTreeSet<String>,
}

impl<L: Leased> Task<L> {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut batch = Vec::new();
        loop {
            let idle = self.entries.is_empty() && self.removing.is_empty();
            tokio::select! {
                count = commands.recv_many(&mut batch, BATCH) => match count {
                    0 => break,
                    _ => self.apply(std::mem::take(&mut batch)).await,
                },
                () = self.leased.due(), if self.live && self.removing.is_empty() => {
                    self.renew().await;
                }
                () = tokio::time::sleep(AGAIN), if !(idle || self.live && self.removing.is_empty()) => {
                    if let Err(error) = self.settle(Vec::new()).await {
                        tracing::warn!(%error, "registrations are not written; trying again");
                    }
                }
            }
        }
        self.leased.end().await;
    }

    async fn apply(&mut self, commands: Vec<Command>) {
        let mut changed = BTreeSet::new();
        let (mut written, mut removed) = (Vec::new(), Vec::new());
        for command in commands {
            match command {
                Command::Put { key, number, value, reply } => {
                    self.removing.remove(&key);
                    self.entries.insert(key.clone(), (number, value));
                    changed.insert(key.clone());
                    written.push((key, number, reply));
                }
                Command::Remove { key, number, reply } => {
                    if self.entries.get(&key).is_some_and(|(newest, _)| *newest == number) {
                        self.entries.remove(&key);
                        changed.remove(&key);
                        self.removing.insert(key);
                    }
                    removed.extend(reply);
                }
            }
        }
        let result = self.settle(changed.into_iter().collect()).await;
        for (key, number, reply) in written {
            if result.is_err()
                && self.entries.get(&key).is_some_and(|(newest, _)| *newest == number)
            {
                // Nobody holds what was refused; it may have been written all the same.
                self.entries.remove(&key);
                self.removing.insert(key);
            }
            let _ = reply.send(same(&result));
        }
        for reply in removed {
            let _ = reply.send(same(&result));
        }
    }

    /// Brings the server to what is wanted: everything after a loss, else what changed.
    async fn settle(&mut self, changed: Vec<String>) -> Result<()> {
        if self.live {
            match self.write(changed).await {
                // The lease was lost, perhaps: below, another one is begun.
                Err(error) if error.is_retryable() || error.kind() == ErrorKind::NotFound => {
                    self.live = false;
                }
                other => other?,
            }
        }
        if !self.live {
            self.leased.begin().await?;
            self.write(self.entries.keys().cloned().collect()).await?;
            self.live = true;
        }
        while !self.removing.is_empty() {
            let batch: Vec<String> = self.removing.iter().take(BATCH).cloned().collect();
            self.leased.remove(&batch).await?;
            self.removing.retain(|key| batch.binary_search(key).is_err());
        }
        Ok(())
    }

    async fn write(&mut self, keys: Vec<String>) -> Result<()> {
        let of = |key: &String| Some((key.clone(), self.entries.get(key)?.1.clone()));
        let entries: Vec<_> = keys.iter().filter_map(of).collect();
        for batch in entries.chunks(BATCH) {
            self.leased.write(batch).await?;
        }
        Ok(())
    }

    async fn renew(&mut self) {
        match self.leased.renew().await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!("the lease of registrations was lost: registering again");
                self.live = false;
                if let Err(error) = self.settle(Vec::new()).await {
                    tracing::warn!(%error, "registrations are not written; trying again");
                }
            }
            Err(error) => tracing::debug!(%error, "a lease is not renewed; trying again"),
        }
    }
}

/// One result for several who wait for it.
fn same(result: &Result<()>) -> Result<()> {
    result.as_ref().copied().map_err(|error| {
        let copy = Error::new(error.kind(), error.operation(), error.message());
        let copy = copy.on(error.backend().unwrap_or("registry"));
        error.context().iter().fold(copy, |copy, (key, value)| copy.with(key.as_str(), value))
    })
}
