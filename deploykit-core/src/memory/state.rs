//! A [`StateStore`] in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::model::AppName;
use crate::state::{Entry, Expected, Fence, Lease, StateStore};

/// A [`StateStore`] in memory. Clones are the same store.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use std::time::Duration;
/// use deploykit_core::{Expected, StateStore, memory, model::AppName};
/// let (state, app) = (memory::State::default(), AppName::new("blog")?);
/// let lease = state.acquire(&app, "me", Duration::from_secs(30)).await?;
/// state.put(&lease.fence, "greeting", "hello", Expected::Absent).await?;
/// assert_eq!(state.keys(&app, "").await?, ["greeting"]);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[derive(Clone, Debug, Default)]
pub struct State(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    apps: Mutex<BTreeMap<AppName, Record>>,
    mutations: AtomicU64,
}

#[derive(Debug, Default)]
struct Record {
    entries: BTreeMap<String, Entry>,
    version: u64,
    /// Goes on when everything else of the app is gone: an epoch is never given out twice.
    epoch: u64,
    lease: Option<(String, Instant)>,
}

impl Record {
    fn check(&self, fence: &Fence) -> Result<()> {
        if fence.epoch == self.epoch {
            return Ok(());
        }
        let message = "the deploy lock has been taken over by another deployer";
        Err(conflict("change the app", message).with("app", &fence.app).with("epoch", fence.epoch))
    }
}

fn conflict(operation: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Conflict, operation, message).on("memory")
}

impl State {
    /// How many writes, deletions and takings of the lock it has accepted.
    pub fn mutations(&self) -> u64 {
        self.0.mutations.load(Ordering::Relaxed)
    }

    /// Makes a change while no newer epoch can be handed out.
    pub(super) fn fenced<T>(&self, fence: &Fence, change: impl FnOnce() -> T) -> Result<T> {
        let mut apps = lock(&self.0.apps);
        apps.entry(fence.app.clone()).or_default().check(fence)?;
        Ok(change())
    }

    fn write<T>(
        &self,
        fence: &Fence,
        key: &str,
        expected: Expected,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Result<T> {
        let mut apps = lock(&self.0.apps);
        let record = apps.entry(fence.app.clone()).or_default();
        record.check(fence)?;
        let found = record.entries.get(key).map(|e| e.version);
        let fits = match expected {
            Expected::Absent => found.is_none(),
            Expected::Version(version) => found == Some(version),
        };
        if !fits {
            let message = format!("expected {expected:?}, found version {found:?}");
            return Err(conflict("write state", message).with("app", &fence.app).with("key", key));
        }
        self.0.mutations.fetch_add(1, Ordering::Relaxed);
        Ok(change(record))
    }
}

#[async_trait]
impl StateStore for State {
    async fn apps(&self) -> Result<Vec<AppName>> {
        let apps = lock(&self.0.apps);
        let stored = apps.iter().filter(|(_, record)| !record.entries.is_empty());
        Ok(stored.map(|(app, _)| app.clone()).collect())
    }

    async fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        Ok(lock(&self.0.apps).get(app).and_then(|record| record.entries.get(key).cloned()))
    }

    async fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        let apps = lock(&self.0.apps);
        let keys = apps.get(app).into_iter().flat_map(|record| record.entries.keys());
        Ok(keys.filter(|key| key.starts_with(prefix)).cloned().collect())
    }

    async fn put(&self, fence: &Fence, key: &str, value: &str, expected: Expected) -> Result<u64> {
        self.write(fence, key, expected, |record| {
            record.version += 1;
            let version = record.version;
            let entry = Entry { key: key.to_owned(), value: value.to_owned(), version };
            record.entries.insert(key.to_owned(), entry);
            version
        })
    }

    async fn delete(&self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        if self.get(&fence.app, key).await?.is_none() {
            return self.fenced(fence, || ());
        }
        self.write(fence, key, Expected::Version(version), |record| {
            record.entries.remove(key);
        })
    }

    async fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease> {
        let mut apps = lock(&self.0.apps);
        let record = apps.entry(app.clone()).or_default();
        if let Some((other, until)) = &record.lease
            && *until > Instant::now()
        {
            let message = format!("`{other}` is deploying it; wait until that has ended");
            let error = conflict("take the deploy lock", message);
            return Err(error.with("app", app).with("holder", other));
        }
        record.epoch += 1;
        record.lease = Some((holder.to_owned(), Instant::now() + ttl));
        self.0.mutations.fetch_add(1, Ordering::Relaxed);
        let fence = Fence { app: app.clone(), epoch: record.epoch };
        Ok(Lease { fence, holder: holder.to_owned() })
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        let mut apps = lock(&self.0.apps);
        let record = apps.entry(lease.fence.app.clone()).or_default();
        record.check(&lease.fence)?;
        match &mut record.lease {
            Some((_, until)) => *until = Instant::now() + ttl,
            None => return Err(conflict("renew the deploy lock", "it was given back")),
        }
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let mut apps = lock(&self.0.apps);
        let record = apps.entry(lease.fence.app.clone()).or_default();
        if record.epoch == lease.fence.epoch {
            record.lease = None;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn a_lease_is_taken_over_when_it_has_lapsed_and_not_before() {
        let (state, app) = (State::default(), AppName::new("blog").unwrap());
        let first = state.acquire(&app, "first", TTL).await.unwrap();
        tokio::time::advance(TTL / 2).await;
        state.renew(&first, TTL).await.unwrap();
        tokio::time::advance(TTL / 2).await;
        let refused = state.acquire(&app, "second", TTL).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        assert!(refused.context().contains(&("holder".into(), "first".into())), "{refused}");
        tokio::time::advance(TTL).await;
        let second = state.acquire(&app, "second", TTL).await.unwrap();
        assert!(second.fence.epoch > first.fence.epoch);
        let late = state.put(&first.fence, "key", "late", Expected::Absent).await.unwrap_err();
        assert_eq!(late.kind(), ErrorKind::Conflict);
        assert_eq!(state.renew(&first, TTL).await.unwrap_err().kind(), ErrorKind::Conflict);
        state.release(&first).await.unwrap();
        assert!(state.acquire(&app, "third", TTL).await.is_err(), "the second still holds it");
    }

    #[tokio::test]
    async fn writes_expect_versions() {
        let (state, app) = (State::default(), AppName::new("blog").unwrap());
        let fence = state.acquire(&app, "me", TTL).await.unwrap().fence;
        let one = state.put(&fence, "a/1", "x", Expected::Absent).await.unwrap();
        assert!(state.put(&fence, "a/1", "y", Expected::Absent).await.is_err());
        let two = state.put(&fence, "a/1", "y", Expected::Version(one)).await.unwrap();
        assert!(state.delete(&fence, "a/1", one).await.is_err());
        assert_eq!(state.get(&app, "a/1").await.unwrap().unwrap().value, "y");
        state.delete(&fence, "a/1", two).await.unwrap();
        state.delete(&fence, "a/1", two).await.unwrap();
        assert!(state.apps().await.unwrap().is_empty());
    }
}
