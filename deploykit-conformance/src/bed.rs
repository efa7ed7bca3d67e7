//! What a test runs on.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use deploykit_core::{Error, ErrorKind, Result, Runtime};

use crate::client::{Client, HttpClient};
use crate::faults::Faults;
use crate::faulty::Faulty;

/// What one connection to a backend is made from. A test makes several, with one folder.
#[derive(Clone)]
pub struct Bed {
    folder: PathBuf,
    kept: Kept,
    faults: Faults,
    client: Arc<Mutex<Option<Box<dyn Client>>>>,
}

type Kept = Arc<Mutex<HashMap<TypeId, Box<dyn Any + Send>>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bed {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, kept: Kept::default(), faults: Faults::default(), client: Arc::default() }
    }

    /// The same bed for another connection, with faults of its own.
    pub(crate) fn another(&self) -> Self {
        Self { faults: Faults::default(), ..self.clone() }
    }

    /// A folder of this test's own, for what the backend keeps on disk. It is the same for all of
    /// the test's connections, those from other processes among them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An environment variable that says where a server is.
    ///
    /// # Errors
    /// `NotFound` where it is not set.
    pub fn env(&self, name: &str) -> Result<String> {
        std::env::var(name).map_err(|_| {
            let message = format!("the environment variable {name} is not set");
            Error::new(ErrorKind::NotFound, "find the server", message)
        })
    }

    /// What all connections of this test within one process share: made at the first call.
    pub fn once<T: Clone + Send + 'static>(&self, make: impl FnOnce() -> T) -> T {
        let mut kept = lock(&self.kept);
        if let Some(there) = kept.get(&TypeId::of::<T>()).and_then(|any| any.downcast_ref::<T>()) {
            return there.clone();
        }
        let made = make();
        kept.insert(TypeId::of::<T>(), Box::new(made.clone()));
        made
    }

    /// Lets requests of the test be sent by `client`, where they do not go over TCP.
    pub fn answered_by(&self, client: impl Client + 'static) {
        *lock(&self.client) = Some(Box::new(client));
    }

    /// A client.
    pub(crate) fn client(&self) -> Box<dyn Client> {
        match &*lock(&self.client) {
            Some(client) => client.another(),
            None => HttpClient::default().another(),
        }
    }

    /// The faults of this connection, for wrappers of one's own.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The runtime with the faults of this connection. Without it the kit's faults strike at the
    /// calls of [`Orchestrator`](deploykit_core::Orchestrator) alone.
    pub fn faulty<R: Runtime>(&self, runtime: R) -> Faulty<R> {
        Faulty::new(runtime, self.faults.clone())
    }
}
