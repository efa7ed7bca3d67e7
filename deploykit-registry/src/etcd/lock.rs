//! Locks: a queue of keys, each under its holder's lease, the oldest has it.
//!
//! The recipe is that of etcd's own `concurrency` package; the token is the revision that made
//! the key.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::{Coordinator, Lock, Result};
use etcd_client::{KeyValue, PutOptions};
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep_until;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Etcd;
use super::follow::Follow;
use super::lease::Lease;
use crate::keeper::Leased;
use crate::segment;

/// One who waits for a lock, or has it.
#[derive(Clone, PartialEq)]
struct Place {
    revision: i64,
    holder: String,
}

fn read(_: &str, entry: &KeyValue) -> Option<Place> {
    let holder = String::from_utf8_lossy(entry.value()).into_owned();
    Some(Place { revision: entry.create_revision(), holder })
}

fn first(follow: &Follow<Place>) -> Option<(&String, &Place)> {
    follow.entries.iter().min_by_key(|(_, place)| place.revision)
}

struct Turn {
    revision: i64,
    lost: watch::Receiver<bool>,
    renewing: JoinHandle<()>,
    end: DropGuard,
}

impl Etcd {
    fn queue(&self, name: &str) -> String {
        format!("{}.locks/{}/", self.0.prefix, segment(name))
    }

    async fn join(&self, name: &str, holder: &str, ttl: Duration) -> Result<(String, Turn)> {
        let mut lease = Lease::new(self.0.client.clone(), ttl);
        lease.begin().await?;
        let id = lease.id;
        // From here on the lease is ended when the turn, or this future, is dropped.
        let end = CancellationToken::new();
        let (sender, lost) = watch::channel(false);
        let renewing = tokio::spawn(renew(lease, sender, end.clone()));
        let end = end.drop_guard();
        let name_in_queue = format!("{id:016x}");
        let key = self.queue(name) + &name_in_queue;
        self.call("ask for a lock", |mut client| {
            let (key, options) = (key.clone(), PutOptions::new().with_lease(id));
            async move { client.put(key, holder, Some(options)).await }
        })
        .await?;
        let made = self.call("ask for a lock", |mut client| {
            let key = key.clone();
            async move { client.get(key, None).await }
        });
        let made = made.await?;
        let revision = made.kvs().first().map_or(0, KeyValue::create_revision);
        Ok((name_in_queue, Turn { revision, lost, renewing, end }))
    }
}

/// Keeps the lease until it is lost or not wanted any more.
async fn renew(mut lease: Lease, lost: watch::Sender<bool>, end: CancellationToken) {
    loop {
        let until = lease.until;
        let alive = tokio::select! {
            () = end.cancelled() => break,
            () = sleep_until(until) => false,
            alive = async {
                lease.due().await;
                !matches!(lease.renew().await, Ok(false))
            } => alive,
        };
        if !alive {
            lost.send_replace(true);
            break;
        }
    }
    lease.end().await;
}

#[async_trait]
impl Coordinator for Etcd {
    /// Cancel-safe: dropping the future leaves the queue.
    async fn lock(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lock>> {
        loop {
            let (ours, mut turn) = self.join(name, holder, ttl).await?;
            let mut queue = Follow::start(self.clone(), self.queue(name), read).await?;
            while queue.entries.contains_key(&ours) && !*turn.lost.borrow() {
                if first(&queue).is_some_and(|(name, _)| *name == ours) {
                    return Ok(Box::new(turn));
                }
                tokio::select! {
                    changed = queue.next() => changed?,
                    _ = turn.lost.wait_for(|lost| *lost) => {}
                }
            }
            // The lease was lost while waiting: from the end of the queue again.
        }
    }

    async fn holder(&self, name: &str) -> Result<BoxStream<'static, Result<Option<String>>>> {
        let queue = Follow::start(self.clone(), self.queue(name), read).await?;
        Ok(queue.changes(|queue| first(queue).map(|(_, place)| place.holder.clone())))
    }
}

#[async_trait]
impl Lock for Turn {
    fn token(&self) -> u64 {
        self.revision.unsigned_abs()
    }

    async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that nothing renews it any more: then it is lost, too.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    async fn release(self: Box<Self>) -> Result<()> {
        drop(self.end);
        // Ends with the lease, or leaves it to end by itself.
        let _ = self.renewing.await;
        Ok(())
    }
}
