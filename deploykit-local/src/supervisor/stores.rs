//! Leases, secrets and volumes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deploykit_agent::seal::Key;
use deploykit_core::model::{AppName, SecretName, VolumeName};
use deploykit_core::{Expected, Fence, Lease, Result, SecretValue};
use tokio::time::Instant;

use super::{State, Supervisor};
use crate::error::{self, BACKEND};
use crate::folder::remove_all;

impl Supervisor {
    /// See [`StateStore::acquire`](deploykit_core::StateStore::acquire). The clock is this
    /// supervisor's own; after its restart every lease runs anew.
    pub(crate) fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease> {
        let mut state = self.state();
        let expired = state.leases.get(app).is_none_or(|end| Instant::now() >= *end);
        let lease = state.database.acquire(app, holder, ttl, expired)?;
        state.leases.insert(app.clone(), Instant::now() + ttl);
        Ok(lease)
    }

    /// See [`StateStore::renew`](deploykit_core::StateStore::renew).
    pub(crate) fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        let mut state = self.state();
        state.database.renew(lease, ttl)?;
        state.leases.insert(lease.fence.app.clone(), Instant::now() + ttl);
        Ok(())
    }

    /// See [`StateStore::put`](deploykit_core::StateStore::put). A new value is on its way to the
    /// disk when this returns. A changed one is written when what was new before is there; it
    /// survives this process, and a power cut may take it back to what it was.
    pub(super) async fn put(
        &self,
        fence: &Fence,
        key: &str,
        value: &str,
        expected: Expected,
    ) -> Result<u64> {
        if expected != Expected::Absent {
            self.disk.finish().await?;
        }
        let version = self.state().database.put(fence, key, value, expected)?;
        if expected == Expected::Absent {
            self.disk.begin(self.folder.write_ahead_log());
        }
        Ok(version)
    }

    fn key(&self, state: &mut State) -> Result<Arc<Key>> {
        if let Some(key) = &state.key {
            return Ok(Arc::clone(key));
        }
        let may_make = !state.database.has_secrets()?;
        let key = Key::open(&self.keys, &self.folder_id, may_make).map_err(|e| e.on(BACKEND))?;
        let key = Arc::new(key);
        state.key = Some(Arc::clone(&key));
        Ok(key)
    }

    /// See [`SecretStore::put`](deploykit_core::SecretStore::put) and, with `only_first`,
    /// [`ensure`](deploykit_core::SecretStore::ensure).
    pub(super) fn put_secret(
        &self,
        app: &AppName,
        name: &SecretName,
        value: &SecretValue,
        only_first: bool,
    ) -> Result<u64> {
        let mut state = self.state();
        let key = self.key(&mut state)?;
        state
            .database
            .add_secret(app, name, only_first, &|version| key.seal(app, name, version, value))
    }

    /// See [`SecretStore::get`](deploykit_core::SecretStore::get).
    pub(super) fn secret(
        &self,
        app: &AppName,
        name: &SecretName,
        version: u64,
    ) -> Result<SecretValue> {
        let mut state = self.state();
        let sealed = state.database.sealed_secret(app, name, version)?;
        self.key(&mut state)?.open_sealed(app, name, version, &sealed)
    }

    /// See [`Runtime::ensure_volume`](deploykit_core::Runtime::ensure_volume). A replica's own
    /// folder is made when the replica is started.
    pub(super) fn ensure_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()> {
        self.state().database.check_fence(fence)?;
        self.folder.make(&self.folder.volume(&fence.app, name, None))
    }

    /// See [`Runtime::remove_volume`](deploykit_core::Runtime::remove_volume).
    pub(super) fn remove_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()> {
        self.state().database.check_fence(fence)?;
        let folder = self.folder.volumes(&fence.app);
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            if volume_of(&entry.file_name()).as_ref() == Some(name) {
                remove_all(&entry.path())
                    .map_err(|e| error::io("remove a volume", &entry.path(), e))?;
            }
        }
        // Fails while there are others.
        let _ = std::fs::remove_dir(&folder);
        Ok(())
    }

    /// The volumes of an app: what there is on the disk.
    pub(super) fn volumes(&self, app: &AppName) -> BTreeSet<VolumeName> {
        let entries = std::fs::read_dir(self.folder.volumes(app)).into_iter().flatten().flatten();
        entries.filter_map(|entry| volume_of(&entry.file_name())).collect()
    }
}

/// The volume that a folder holds data of: `data`, or `data.2` for a replica's own.
fn volume_of(folder: &std::ffi::OsStr) -> Option<VolumeName> {
    VolumeName::new(folder.to_str()?.split('.').next()?).ok()
}
