//! What is under a prefix, followed from revision to revision.

use std::collections::BTreeMap;
use std::time::Duration;

use deploykit_core::Result;
use etcd_client::{EventType, GetOptions, KeyValue, WatchOptions, WatchStream};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::{sleep, timeout};

use super::{CALL, Etcd, PAUSE};
use crate::error::{of_etcd, timed_out};

/// A watch that says nothing for so long is asked whether it lives, and has as long to answer.
const IDLE: Duration = Duration::from_secs(5);

/// How many entries are asked for at once: an answer has at most 4 MiB.
const PAGE: i64 = 5_000;

type Read<T> = Box<dyn Fn(&str, &KeyValue) -> Option<T> + Send + Sync>;

pub(super) struct Follow<T> {
    etcd: Etcd,
    /// Ends with a slash.
    prefix: String,
    read: Read<T>,
    /// By what follows the prefix.
    pub(super) entries: BTreeMap<String, T>,
    /// What is known is of this revision; None when its history is gone.
    revision: Option<i64>,
    watch: Option<WatchStream>,
    asked: bool,
}

impl<T: Clone + Send + 'static> Follow<T> {
    /// Lists what is there.
    pub(super) async fn start(
        etcd: Etcd,
        prefix: String,
        read: impl Fn(&str, &KeyValue) -> Option<T> + Send + Sync + 'static,
    ) -> Result<Self> {
        let (entries, read) = (BTreeMap::new(), Box::new(read));
        let mut follow =
            Self { etcd, prefix, read, entries, revision: None, watch: None, asked: false };
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

    async fn list(&mut self) -> Result<()> {
        // A slash ends the prefix: the next character ends the range.
        let end = format!("{}0", &self.prefix[..self.prefix.len() - 1]);
        let (mut from, mut revision) = (self.prefix.clone(), 0);
        let mut entries = BTreeMap::new();
        loop {
            let options =
                GetOptions::new().with_range(end.as_str()).with_limit(PAGE).with_revision(revision);
            let page = self.etcd.call("list", |mut client| {
                let (from, options) = (from.clone(), options.clone());
                async move { client.get(from, Some(options)).await }
            });
            let page = page.await?;
            for entry in page.kvs() {
                let key = String::from_utf8_lossy(entry.key());
                let name = key[self.prefix.len()..].to_owned();
                if let Some(value) = (self.read)(&name, entry) {
                    entries.insert(name, value);
                }
                from = format!("{key}\0");
            }
            if revision == 0 {
                revision = page.header().map_or(0, |header| header.revision());
            }
            if !page.more() {
                break;
            }
        }
        (self.entries, self.revision) = (entries, Some(revision));
        Ok(())
    }

    /// Waits for a change. Cancel-safe: what was not taken over is told again.
    ///
    /// Fails only for what trying again does not heal.
    pub(super) async fn next(&mut self) -> Result<()> {
        loop {
            match self.step().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if error.is_retryable() => {
                    tracing::debug!(%error, "a watch of etcd was cut; resuming");
                    self.watch = None;
                    sleep(PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn step(&mut self) -> Result<bool> {
        let Some(revision) = self.revision else {
            self.list().await?;
            return Ok(true);
        };
        let Some(watch) = &mut self.watch else {
            let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
            let mut client = self.etcd.0.client.clone();
            let open = timeout(CALL, client.watch(self.prefix.as_str(), Some(options))).await;
            let open = open.map_err(|_| timed_out("etcd", "watch"))?;
            self.watch = Some(open.map_err(|error| of_etcd("watch", error))?);
            return Ok(false);
        };
        let Ok(message) = timeout(IDLE, watch.message()).await else {
            if std::mem::replace(&mut self.asked, true) {
                self.asked = false;
                return Err(timed_out("etcd", "watch"));
            }
            let asked = watch.request_progress().await;
            return asked.map(|()| false).map_err(|error| of_etcd("watch", error));
        };
        self.asked = false;
        let message = message.map_err(|error| of_etcd("watch", error))?;
        let Some(message) = message else {
            return Err(timed_out("etcd", "watch"));
        };
        if message.canceled() {
            self.watch = None;
            if message.compact_revision() > 0 {
                self.revision = None;
            } else {
                sleep(PAUSE).await;
            }
            return Ok(false);
        }
        for event in message.events() {
            let Some(entry) = event.kv() else { continue };
            let key = String::from_utf8_lossy(entry.key());
            let name = key[self.prefix.len()..].to_owned();
            let value = match event.event_type() {
                EventType::Put => (self.read)(&name, entry),
                EventType::Delete => None,
            };
            match value {
                Some(value) => self.entries.insert(name, value),
                None => self.entries.remove(&name),
            };
            // Not the header's, which may be ahead of the events.
            self.revision = Some(entry.mod_revision());
        }
        Ok(!message.events().is_empty())
    }
}
