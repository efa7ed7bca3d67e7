//! The nodes of a folder, followed over the ends of sessions.

use std::collections::BTreeMap;

use deploykit_core::{ErrorKind, Result};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use tokio::time::sleep;
use zookeeper_client::{AddWatchMode, Client, EventType, PersistentWatcher, Stat, WatchedEvent};

use super::{PAUSE, ZooKeeper, within};
use crate::error::timed_out;

/// How many nodes are read at once.
const READS: usize = 64;

type Read<T> = Box<dyn Fn(&str, &[u8], Stat) -> Option<T> + Send + Sync>;

pub(super) struct Follow<T> {
    zookeeper: ZooKeeper,
    folder: String,
    read: Read<T>,
    /// By the names of their nodes.
    pub(super) entries: BTreeMap<String, T>,
    /// None when the session has ended.
    watch: Option<(Client, PersistentWatcher)>,
}

impl<T: Clone + Send + 'static> Follow<T> {
    /// Lists what is there.
    pub(super) async fn start(
        zookeeper: ZooKeeper,
        folder: String,
        read: impl Fn(&str, &[u8], Stat) -> Option<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (entries, read) = (BTreeMap::new(), Box::new(read));
        let mut follow = Self { zookeeper, folder, read, entries, watch: None };
        follow.list().await?;
        Ok(follow)
    }

    pub(super) fn values(&self) -> Vec<T> {
        self.entries.values().cloned().collect()
    }

    /// A view of it now, and anew each time that it is another.
    pub(super) fn changes<V>(
        self,
        view: impl Fn(&Self) -> V + Send + 'static,
    ) -> BoxStream<'static, Result<V>>
    where
        V: Clone + PartialEq + Send + 'static,
    {
        let state = Some((self, view, None));
        stream::unfold(state, |state| async move {
            let (mut follow, view, mut last) = state?;
            loop {
                if last.is_some()
                    && let Err(error) = follow.next().await
                {
                    return Some((Err(error), None));
                }
                let now = view(&follow);
                if last.as_ref() != Some(&now) {
                    last = Some(now.clone());
                    return Some((Ok(now), Some((follow, view, last))));
                }
            }
        })
        .boxed()
    }

    /// Again, once, where it was then that the session was found to have ended.
    async fn list(&mut self) -> Result<()> {
        let client = self.zookeeper.reader().await?;
        match self.list_by(client.clone()).await {
            Err(_) if client.state().is_terminated() => {
                self.list_by(self.zookeeper.reader().await?).await
            }
            listed => listed,
        }
    }

    /// The watch comes first: what changes while the nodes are read is told by it.
    async fn list_by(&mut self, client: Client) -> Result<()> {
        let mode = AddWatchMode::PersistentRecursive;
        let watch = within("watch", client.watch(&self.folder, mode)).await?;
        // The server that is asked may be behind the one that others wrote to.
        within("list", client.sync(&self.folder)).await?;
        let names = match within("list", client.list_children(&self.folder)).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            names => names?,
        };
        let reads = names.into_iter().map(|name| {
            let (client, folder) = (&client, &self.folder);
            async move { Ok::<_, deploykit_core::Error>((get(client, folder, &name).await?, name)) }
        });
        let found: Vec<_> = stream::iter(reads).buffer_unordered(READS).try_collect().await?;
        self.entries.clear();
        for (node, name) in found {
            self.put(name, node);
        }
        self.watch = Some((client, watch));
        Ok(())
    }

    fn put(&mut self, name: String, node: Option<(Vec<u8>, Stat)>) {
        match node.and_then(|(data, stat)| (self.read)(&name, &data, stat)) {
            Some(value) => self.entries.insert(name, value),
            None => self.entries.remove(&name),
        };
    }

    /// Waits for a change. Not cancel-safe: whoever drops it, drops the whole.
    ///
    /// Fails only for what trying again does not heal.
    pub(super) async fn next(&mut self) -> Result<()> {
        loop {
            match self.step().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "a watch of ZooKeeper was cut; listing again");
                    self.watch = None;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&mut self) -> Result<bool> {
        let Some((client, watch)) = &mut self.watch else {
            self.list().await?;
            return Ok(true);
        };
        let client = client.clone();
        let event = watch.changed().await;
        let mut changed = self.take(&client, event).await?;
        // What has come meanwhile is one change with it.
        while let Some((_, watch)) = &mut self.watch {
            match watch.changed().now_or_never() {
                Some(event) => changed |= self.take(&client, event).await?,
                None => break,
            }
        }
        Ok(changed)
    }

    async fn take(&mut self, client: &Client, event: WatchedEvent) -> Result<bool> {
        if event.event_type == EventType::Session {
            // The watch outlives a lost connection, but what happens meanwhile is not told after:
            // https://github.com/apache/zookeeper/pull/1106
            return Err(timed_out("zookeeper", "watch"));
        }
        let Some(name) = event.path.strip_prefix(&self.folder).and_then(|p| p.strip_prefix('/'))
        else {
            return Ok(false);
        };
        let name = name.to_owned();
        let node = match event.event_type {
            EventType::NodeDeleted => None,
            _ => get(client, &self.folder, &name).await?,
        };
        self.put(name, node);
        Ok(true)
    }
}

async fn get(client: &Client, folder: &str, name: &str) -> Result<Option<(Vec<u8>, Stat)>> {
    match within("read", client.get_data(&format!("{folder}/{name}"))).await {
        Ok(node) => Ok(Some(node)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
