//! Locks: a queue of ephemeral nodes, each of a session of its own, the oldest has it.
//!
//! The recipe is [ZooKeeper's own](https://zookeeper.apache.org/doc/current/recipes.html); the
//! token is the transaction that made the node.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::{Coordinator, ErrorKind, Lock, Result};
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};
use zookeeper_client::{Acls, Client, CreateMode, SessionState, Stat, StateWatcher};

use super::follow::Follow;
use super::{ZooKeeper, within};
use crate::segment;

/// One who waits for a lock, or has it.
#[derive(Clone, PartialEq)]
struct Place {
    made: i64,
    holder: String,
}

fn read(_: &str, data: &[u8], stat: Stat) -> Option<Place> {
    Some(Place { made: stat.czxid, holder: String::from_utf8_lossy(data).into_owned() })
}

fn first(follow: &Follow<Place>) -> Option<(&String, &Place)> {
    follow.entries.iter().min_by_key(|(_, place)| place.made)
}

struct Turn {
    made: i64,
    lost: watch::Receiver<bool>,
    path: String,
    client: Client,
    _end: DropGuard,
}

impl ZooKeeper {
    fn queue(&self, name: &str) -> String {
        match self.0.base.as_str() {
            "" => format!("/.locks/{}", segment(name)),
            base => format!("{base}.locks/{}", segment(name)),
        }
    }

    async fn join(&self, name: &str, holder: &str, ttl: Duration) -> Result<(String, Turn)> {
        // Its node vanishes with the session, which ends when the turn, or this future, is dropped.
        let client = self.0.connect.connect(ttl).await?;
        let queue = self.queue(name);
        self.0.connect.make_folder(&client, &queue).await?;
        let in_queue = format!("{:016x}", client.session_id().0);
        let path = format!("{queue}/{in_queue}");
        let acls = self.0.connect.acls();
        let options = CreateMode::Ephemeral.with_acls(Acls::new(&acls));
        let made = within("ask for a lock", client.create(&path, holder.as_bytes(), &options));
        let made = made.await?.0.czxid;
        let (sender, lost) = watch::channel(false);
        let end = CancellationToken::new();
        let session = client.state_watcher();
        let tied = end.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tied.cancelled() => {}
                () = ended(session, ttl / 3) => drop(sender.send_replace(true)),
            }
        });
        Ok((in_queue, Turn { made, lost, path, client, _end: end.drop_guard() }))
    }
}

/// Waits until the session has ended, or may soon have: it is without a server for so long.
async fn ended(mut session: StateWatcher, patience: Duration) {
    let mut state = session.peek_state();
    while !state.is_terminated() {
        state = match state {
            SessionState::Disconnected => match timeout(patience, session.changed()).await {
                Ok(state) => state,
                Err(_) => return,
            },
            _ => session.changed().await,
        };
    }
}

#[async_trait]
impl Coordinator for ZooKeeper {
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
            // The session was lost while waiting: from the end of the queue again.
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
        self.made.unsigned_abs()
    }

    async fn lost(&self) {
        let mut lost = self.lost.clone();
        // An error means that nothing looks after it any more: then it is lost, too.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    async fn release(self: Box<Self>) -> Result<()> {
        match within("release a lock", self.client.delete(&self.path, None)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }
}
