//! Bringing what was written to the disk, beside the work that goes on.
//!
//! A power cut takes the instances with it, so nothing that they rest on has to be on the disk
//! before they start: a new revision and its executables are synced while they do, and the
//! revision's outcome is written only when they are there.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use deploykit_core::Result;
use tokio::task::JoinHandle;

use crate::error;

type Syncing = (PathBuf, JoinHandle<io::Result<()>>);

/// What is on its way to the disk.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    begun: Mutex<Vec<Syncing>>,
    /// Who waits; the next one waits for the same too.
    waiting: tokio::sync::Mutex<()>,
    /// Executables that were begun once.
    executables: Mutex<BTreeSet<PathBuf>>,
}

impl Disk {
    /// Begins to sync a file or folder. Must be called within the runtime.
    pub(super) fn begin(&self, path: PathBuf) {
        let file = path.clone();
        let sync = move || File::open(file).and_then(|file| file.sync_all());
        let syncing = tokio::task::spawn_blocking(sync);
        lock(&self.begun).push((path, syncing));
    }

    /// Begins to sync an executable, once. Must be called within the runtime.
    pub(super) fn begin_executable(&self, path: &Path) {
        if lock(&self.executables).insert(path.to_owned()) {
            self.begin(path.to_owned());
            if let Some(folder) = path.parent() {
                self.begin(folder.to_owned());
            }
        }
    }

    /// Waits for all that was begun.
    pub(super) async fn finish(&self) -> Result<()> {
        let _alone = self.waiting.lock().await;
        let begun = std::mem::take(&mut *lock(&self.begun));
        let mut failure = None;
        for (path, syncing) in begun {
            match syncing.await.unwrap_or_else(|e| Err(io::Error::other(e))) {
                Ok(()) => {}
                // Removed meanwhile.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => failure = Some(error::io("write to the disk", &path, e)),
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
