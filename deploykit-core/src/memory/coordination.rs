//! A [`Coordinator`] in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{OwnedMutexGuard, watch};

use super::lock;
use crate::error::Result;
use crate::registry::{Coordinator, Lock};

/// A [`Coordinator`] in memory: its locks are given in the order of asking. Clones are the same.
///
/// A lock is held as long as its guard lives; [`Coordination::lapse`] lets one be lost as if its
/// holder had been frozen for longer than its time to live.
#[derive(Clone, Debug, Default)]
pub struct Coordination(Arc<Mutex<BTreeMap<String, Arc<Named>>>>);

#[derive(Debug, Default)]
struct Named {
    /// Fair: those who wait get it in the order of their coming.
    queue: Arc<tokio::sync::Mutex<()>>,
    current: Mutex<Current>,
    holder: watch::Sender<Option<String>>,
}

#[derive(Debug, Default)]
struct Current {
    token: u64,
    turn: Option<(OwnedMutexGuard<()>, watch::Sender<bool>)>,
}

impl Named {
    /// Ends the turn of `token`, or of whoever has it.
    fn end(&self, token: Option<u64>) {
        let mut current = lock(&self.current);
        if token.is_some_and(|token| token != current.token) {
            return;
        }
        if let Some((turn, lost)) = current.turn.take() {
            lost.send_replace(true);
            self.holder.send_replace(None);
            drop(turn);
        }
    }
}

impl Coordination {
    fn named(&self, name: &str) -> Arc<Named> {
        lock(&self.0).entry(name.to_owned()).or_default().clone()
    }

    /// Takes the lock of that name from its holder, who is told so.
    pub fn lapse(&self, name: &str) {
        self.named(name).end(None);
    }
}

#[async_trait]
impl Coordinator for Coordination {
    async fn lock(&self, name: &str, holder: &str, _: Duration) -> Result<Box<dyn Lock>> {
        let named = self.named(name);
        let turn = named.queue.clone().lock_owned().await;
        let (sender, lost) = watch::channel(false);
        let token = {
            let mut current = lock(&named.current);
            current.token += 1;
            current.turn = Some((turn, sender));
            named.holder.send_replace(Some(holder.to_owned()));
            current.token
        };
        Ok(Box::new(Held { named, token, lost }))
    }

    async fn holder(&self, name: &str) -> Result<BoxStream<'static, Result<Option<String>>>> {
        let named = self.named(name);
        let mut receiver = named.holder.subscribe();
        receiver.mark_changed();
        Ok(stream::unfold((named, receiver), |(named, mut receiver)| async {
            receiver.changed().await.ok()?;
            let holder = receiver.borrow_and_update().clone();
            Some((Ok(holder), (named, receiver)))
        })
        .boxed())
    }
}

struct Held {
    named: Arc<Named>,
    token: u64,
    lost: watch::Receiver<bool>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.named.end(Some(self.token));
    }
}

#[async_trait]
impl Lock for Held {
    fn token(&self) -> u64 {
        self.token
    }

    async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that the sender is gone: then it was taken away, too.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    async fn release(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(1);

    #[tokio::test]
    async fn locks_are_given_in_order_with_growing_tokens() {
        let coordination = Coordination::default();
        let first = coordination.lock("leader", "a", TTL).await.unwrap();
        let (sender, mut order) = tokio::sync::mpsc::unbounded_channel();
        for name in ["b", "c", "d"] {
            let (coordination, sender) = (coordination.clone(), sender.clone());
            tokio::spawn(async move {
                let lock = coordination.lock("leader", name, TTL).await.unwrap();
                sender.send((name, lock.token())).unwrap();
                lock.release().await.unwrap();
            });
            tokio::task::yield_now().await;
        }
        assert!(order.try_recv().is_err(), "the first holds it");
        let token = first.token();
        first.release().await.unwrap();
        for (place, name) in ["b", "c", "d"].into_iter().enumerate() {
            assert_eq!(order.recv().await.unwrap(), (name, token + 1 + place as u64));
        }
    }

    #[tokio::test]
    async fn a_lapsed_holder_is_told_and_cannot_release_its_successor() {
        let coordination = Coordination::default();
        let first = coordination.lock("leader", "a", TTL).await.unwrap();
        coordination.lapse("leader");
        first.lost().await;
        let second = coordination.lock("leader", "b", TTL).await.unwrap();
        drop(first);
        let mut holders = coordination.holder("leader").await.unwrap();
        assert_eq!(holders.next().await.unwrap().unwrap().as_deref(), Some("b"));
        drop(second);
        assert_eq!(holders.next().await.unwrap().unwrap(), None);
    }
}
