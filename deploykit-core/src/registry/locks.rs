//! Locks over any store that can compare and swap.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Coordinator, Lock};
use crate::error::Result;

/// One lock as it is written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockEntry {
    /// The token of the newest holder.
    pub token: u64,
    /// Who holds it.
    pub holder: Option<String>,
    /// Another number each time when the holder is heard of.
    pub beat: u64,
    /// For how long it may not be heard of.
    pub ttl: Duration,
}

/// Where [`Locks`] are written down: one entry for each name.
#[async_trait]
pub trait LockStore: Send + Sync + 'static {
    /// How often those who wait look.
    fn pause(&self) -> Duration;

    /// The lock of that name; nothing where it was never taken.
    async fn look(&self, name: &str) -> Result<Option<LockEntry>>;

    /// Takes the lock where nobody has it, or where `expired` is still all that is known of who
    /// does. Its token, greater than all before; nothing where somebody else was faster.
    async fn take(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        expired: Option<&LockEntry>,
    ) -> Result<Option<u64>>;

    /// Lets the holder be heard of; false where the lock is not of that token any more.
    async fn beat(&self, name: &str, token: u64) -> Result<bool>;

    /// Gives the lock back, where it is of that token.
    async fn give_back(&self, name: &str, token: u64) -> Result<()>;
}

/// A [`Coordinator`] over a [`LockStore`].
///
/// A holder is heard of while it lives; who hears nothing of it for its time to live, by its own
/// clock, takes over. Waiters look every now and then, and get it in no order.
#[derive(Debug)]
pub struct Locks<S>(Arc<S>);

impl<S> Clone for Locks<S> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S: LockStore> Locks<S> {
    /// The locks that are written down there.
    pub fn new(store: S) -> Self {
        Self(Arc::new(store))
    }
}

/// An entry, and since when it has not changed, by this program's clock.
#[derive(Default)]
struct Watched(Option<(LockEntry, Instant)>);

impl Watched {
    /// Whether its holder, if there is one, has not been heard of for its time to live.
    fn expired(&mut self, seen: &LockEntry) -> bool {
        match &self.0 {
            Some((before, since)) if before == seen => since.elapsed() >= seen.ttl,
            _ => {
                self.0 = Some((seen.clone(), Instant::now()));
                false
            }
        }
    }
}

#[async_trait]
impl<S: LockStore> Coordinator for Locks<S> {
    /// Cancel-safe: a lock that is taken while nobody waits any more ends by its time to live.
    async fn lock(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lock>> {
        let mut watched = Watched::default();
        loop {
            let asked = Instant::now();
            let seen = self.0.look(name).await?;
            let free = seen.as_ref().is_none_or(|seen| seen.holder.is_none());
            let expired = seen.as_ref().is_some_and(|seen| watched.expired(seen));
            if (free || expired)
                && let Some(token) = self.0.take(name, holder, ttl, seen.as_ref()).await?
            {
                return Ok(Box::new(Held::start(self.clone(), name, token, ttl, asked)));
            }
            sleep(self.0.pause().min(ttl / 4)).await;
        }
    }

    async fn holder(&self, name: &str) -> Result<BoxStream<'static, Result<Option<String>>>> {
        let state = (self.clone(), name.to_owned(), Watched::default(), None);
        Ok(stream::unfold(Some(state), |state| async {
            let (locks, name, mut watched, mut last) = state?;
            loop {
                let seen = match locks.0.look(&name).await {
                    Ok(seen) => seen,
                    Err(error) => return Some((Err(error), None)),
                };
                let living = seen.filter(|seen| !watched.expired(seen));
                let holder = living.and_then(|seen| seen.holder);
                if last.as_ref() != Some(&holder) {
                    last = Some(holder.clone());
                    return Some((Ok(holder), Some((locks, name, watched, last))));
                }
                sleep(locks.0.pause()).await;
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
    fn start<S: LockStore>(
        locks: Locks<S>,
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
                match timeout_at(until, locks.0.beat(&name, token)).await {
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
            locks.0.give_back(&name, token).await
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
