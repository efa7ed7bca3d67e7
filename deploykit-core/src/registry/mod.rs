//! Service registries and coordination: for users' services, never for the deploy lock.

mod app;
mod locks;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::{Address, ServiceName};

pub use app::AppRegistry;
pub use locks::{LockEntry, LockStore, Locks};

/// One registered instance of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Registered {
    /// The service.
    pub service: ServiceName,
    /// Its id, unique within the service.
    pub id: String,
    /// Where it is reached.
    pub address: Address,
    /// Facts about it: a zone, a weight, a version.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: BTreeMap<String, String>,
}

impl Registered {
    /// An instance at an address.
    pub fn new(service: ServiceName, id: impl Into<String>, address: Address) -> Self {
        Self { service, id: id.into(), address, metadata: BTreeMap::new() }
    }
}

/// Where services are found.
#[async_trait]
pub trait ServiceRegistry: Send + Sync {
    /// Registers an instance: it is found until the registration is ended or dropped, or its
    /// process has been dead for `ttl`.
    async fn register(&self, instance: Registered, ttl: Duration) -> Result<Box<dyn Registration>>;

    /// The instances of a service, in the order of their ids.
    async fn instances(&self, service: &ServiceName) -> Result<Vec<Registered>>;

    /// The instances of a service: those of now first, then all of them anew after each change.
    async fn watch(
        &self,
        service: &ServiceName,
    ) -> Result<BoxStream<'static, Result<Vec<Registered>>>>;
}

/// A registration that is kept alive. Dropping it ends it, at the latest after its time to live.
#[async_trait]
pub trait Registration: Send + Sync {
    /// Ends it now.
    async fn deregister(self: Box<Self>) -> Result<()>;
}

/// A lock that is held. Dropping it gives it back, at the latest after its time to live.
#[async_trait]
pub trait Lock: Send + Sync {
    /// Grows with each holder. What the lock protects must refuse a token that is lower than one
    /// it has seen: without that, a holder that was frozen can write after its time.
    fn token(&self) -> u64;

    /// Ends when the lock is lost.
    async fn lost(&self);

    /// Gives it back now.
    async fn release(self: Box<Self>) -> Result<()>;
}

/// What members of a group agree by.
#[async_trait]
pub trait Coordinator: Send + Sync {
    /// Waits for the lock of that name and takes it; it is lost when not renewed for `ttl` (which
    /// happens by itself while the process runs). Dropping the future leaves the queue.
    ///
    /// Leader election is this lock: who holds it leads, until it is released or lost.
    async fn lock(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lock>>;

    /// Who holds the lock of that name: now, and after each change.
    async fn holder(&self, name: &str) -> Result<BoxStream<'static, Result<Option<String>>>>;
}
