//! The state of apps: what core's [`StateStore`](deploykit_core::StateStore) asks for, one file for
//! each app. What is checked together is written together.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{Entry, Error, ErrorKind, Expected, Fence, Lease, Result};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::document;
use super::sealed::Secret;
use crate::error::{self, BACKEND};

const SUFFIX: &str = ".json";

/// Everything of one app.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// Names the key of its secrets.
    pub(super) id: String,
    epoch: u64,
    /// Who holds the deploy lock, and for how long a time.
    lease: Option<(String, Duration)>,
    /// The newest version of any entry that ever was: none is used twice.
    version: u64,
    entries: BTreeMap<String, Stored>,
    pub(super) secrets: BTreeMap<SecretName, Secret>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Stored {
    value: String,
    version: u64,
}

impl Record {
    fn new() -> Self {
        // Above any epoch of a record that was lost with its disk: agents that remember one of
        // those must not refuse what comes after it.
        let epoch =
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
        let epoch = u64::try_from(epoch).unwrap_or(0);
        Self {
            id: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            epoch,
            lease: None,
            version: 0,
            entries: BTreeMap::new(),
            secrets: BTreeMap::new(),
        }
    }

    fn check(&self, fence: &Fence) -> Result<()> {
        if self.epoch == fence.epoch {
            return Ok(());
        }
        let message = match &self.lease {
            Some((holder, _)) => {
                format!("the deploy lock was taken over by {holder}; run it again")
            }
            None => "the deploy lock was taken over; run it again".to_owned(),
        };
        let error = conflict("change the app", message);
        Err(error.with("app", &fence.app).with("epoch", fence.epoch))
    }

    /// Refuses to change an entry that is not as expected.
    fn expect(&self, app: &AppName, key: &str, expected: Expected) -> Result<()> {
        let found = self.entries.get(key).map(|stored| stored.version);
        let message = match (found, expected) {
            (None, Expected::Absent) => return Ok(()),
            (Some(found), Expected::Version(version)) if found == version => return Ok(()),
            (Some(found), _) => {
                format!("`{key}` was changed meanwhile (it is at version {found}); read it again")
            }
            (None, _) => format!("`{key}` is gone; read it again"),
        };
        Err(conflict("write the state", message).with("app", app))
    }
}

fn conflict(operation: &str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Conflict, operation, message).on(BACKEND)
}

/// An app, as long as this process lives.
#[derive(Debug)]
struct Kept {
    /// Or why its file is refused.
    record: Result<Record, (ErrorKind, String)>,
    /// When its lease ends, by this process's own clock.
    until: Instant,
    /// Who has taken the lease, or renewed it last.
    client: Option<u64>,
}

/// The files of all apps, held in memory.
#[derive(Debug)]
pub(super) struct Keeper {
    folder: PathBuf,
    apps: BTreeMap<AppName, Kept>,
}

impl Keeper {
    /// Reads what is there. Who calls this holds the state folder's lock. Every lease that has not
    /// been given back runs anew for its whole time.
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let failed = |e| error::io("open the agent's state", folder, e);
        fs::create_dir_all(folder).map_err(failed)?;
        let mut apps = BTreeMap::new();
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(SUFFIX));
            let Some(app) = name.and_then(|name| AppName::new(name).ok()) else { continue };
            let record = match document::read::<Record>(&path) {
                Ok(Some(record)) => Ok(record),
                Ok(None) => continue,
                Err(e) => Err((e.kind(), format!("{}: {}", path.display(), e.message()))),
            };
            let lease = record.as_ref().ok().and_then(|record| record.lease.as_ref());
            let until = Instant::now() + lease.map(|(_, ttl)| *ttl).unwrap_or_default();
            apps.insert(app, Kept { record, until, client: None });
        }
        Ok(Self { folder: folder.to_owned(), apps })
    }

    /// What is kept of an app; nothing where it has never been heard of.
    pub(super) fn record(&self, app: &AppName) -> Result<Option<&Record>> {
        match self.apps.get(app).map(|kept| &kept.record) {
            None => Ok(None),
            Some(Ok(record)) => Ok(Some(record)),
            Some(Err((kind, message))) => {
                let error = Error::new(*kind, "read the agent's state", message.clone());
                Err(error.on(BACKEND).with("app", app))
            }
        }
    }

    /// Changes what is kept of an app, on the disk and then in memory, or neither.
    pub(super) fn change<T>(
        &mut self,
        app: &AppName,
        change: impl FnOnce(&mut Record) -> Result<T>,
    ) -> Result<T> {
        let mut record = self.record(app)?.cloned().unwrap_or_else(Record::new);
        let value = change(&mut record)?;
        document::write(&self.folder.join(format!("{app}{SUFFIX}")), &record)?;
        match self.apps.get_mut(app) {
            Some(kept) => kept.record = Ok(record),
            None => {
                let kept = Kept { record: Ok(record), until: Instant::now(), client: None };
                self.apps.insert(app.clone(), kept);
            }
        }
        Ok(value)
    }

    /// Refuses a fence of an epoch that is not the newest of its app.
    pub(super) fn check(&self, fence: &Fence) -> Result<()> {
        match self.record(&fence.app)? {
            Some(record) => record.check(fence),
            None => Err(conflict("change the app", "the deploy lock is not held; run it again")
                .with("app", &fence.app)),
        }
    }

    /// Whether locks of the app have been given out here.
    pub(super) fn has(&self, app: &AppName) -> bool {
        self.apps.contains_key(app)
    }

    pub(super) fn apps(&self) -> Vec<AppName> {
        // One that cannot be read has something: who asks for it is told why.
        let stored =
            |kept: &Kept| kept.record.as_ref().map_or(true, |record| !record.entries.is_empty());
        self.apps.iter().filter(|(_, kept)| stored(kept)).map(|(app, _)| app.clone()).collect()
    }

    pub(super) fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        let found = self.record(app)?.and_then(|record| record.entries.get(key));
        Ok(found.map(|stored| Entry {
            key: key.to_owned(),
            value: stored.value.clone(),
            version: stored.version,
        }))
    }

    pub(super) fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        let keys = self.record(app)?.into_iter().flat_map(|record| record.entries.keys());
        Ok(keys.filter(|key| key.starts_with(prefix)).cloned().collect())
    }

    pub(super) fn put(
        &mut self,
        fence: &Fence,
        key: String,
        value: String,
        expected: Expected,
    ) -> Result<u64> {
        self.check(fence)?;
        self.change(&fence.app, |record| {
            record.expect(&fence.app, &key, expected)?;
            record.version += 1;
            record.entries.insert(key, Stored { value, version: record.version });
            Ok(record.version)
        })
    }

    pub(super) fn delete(&mut self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        self.check(fence)?;
        if self.get(&fence.app, key)?.is_none() {
            return Ok(());
        }
        self.change(&fence.app, |record| {
            record.expect(&fence.app, key, Expected::Version(version))?;
            record.entries.remove(key);
            Ok(())
        })
    }

    pub(super) fn acquire(
        &mut self,
        app: &AppName,
        holder: &str,
        ttl: Duration,
        client: u64,
    ) -> Result<Lease> {
        let runs = self.apps.get(app).is_some_and(|kept| Instant::now() < kept.until);
        let lease = self.change(app, |record| {
            if let Some((other, _)) = record.lease.as_ref().filter(|_| runs) {
                let message = format!("{other} is deploying this app; wait until it has finished");
                let error = conflict("take the deploy lock", message);
                return Err(error.with("app", app).with("holder", other));
            }
            record.epoch += 1;
            record.lease = Some((holder.to_owned(), ttl));
            let fence = Fence { app: app.clone(), epoch: record.epoch };
            Ok(Lease { fence, holder: holder.to_owned() })
        })?;
        self.hold(app, ttl, client);
        Ok(lease)
    }

    pub(super) fn renew(&mut self, lease: &Lease, ttl: Duration, client: u64) -> Result<()> {
        let app = &lease.fence.app;
        self.check(&lease.fence)?;
        let given_back = || conflict("renew the deploy lock", "it was given back").with("app", app);
        let length = self.record(app)?.and_then(|record| record.lease.as_ref());
        let (_, length) = length.ok_or_else(given_back)?;
        // The disk knows how long a lease is, and not when it began.
        if *length != ttl {
            self.change(app, |record| {
                record.lease = Some((lease.holder.clone(), ttl));
                Ok(())
            })?;
        }
        self.hold(app, ttl, client);
        Ok(())
    }

    fn hold(&mut self, app: &AppName, ttl: Duration, client: u64) {
        if let Some(kept) = self.apps.get_mut(app) {
            kept.until = Instant::now() + ttl;
            kept.client = Some(client);
        }
    }

    pub(super) fn release(&mut self, lease: &Lease) -> Result<()> {
        let app = &lease.fence.app;
        let holds = |record: &Record| record.epoch == lease.fence.epoch && record.lease.is_some();
        if !self.record(app)?.is_some_and(holds) {
            return Ok(());
        }
        self.change(app, |record| {
            record.lease = None;
            Ok(())
        })
    }

    /// A client is gone: the leases that it held last keep nobody waiting. They are still its own,
    /// should it come back on another connection before somebody else takes them.
    pub(super) fn gone(&mut self, client: u64) {
        for kept in self.apps.values_mut().filter(|kept| kept.client == Some(client)) {
            kept.until = Instant::now();
        }
    }
}
