//! Where revisions and the deploy lock are kept: with the app, in the backend.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::model::AppName;

/// The right to change an app, as of one epoch of its deploy lock.
///
/// Every mutating call carries one. A backend that can refuses a call whose epoch is not the
/// newest that it has handed out ([`Fencing::Enforced`](crate::Fencing::Enforced)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The app.
    pub app: AppName,
    /// Grows with each holder of the lock.
    pub epoch: u64,
}

/// The deploy lock of an app, held for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The right that comes with it.
    pub fence: Fence,
    /// Who holds it, for people.
    pub holder: String,
}

/// A stored value and its version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value: UTF-8 JSON in all of this library's use.
    pub value: String,
    /// Changes with each write.
    pub version: u64,
}

/// What a write expects to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expected {
    /// Nothing under that key.
    Absent,
    /// That version.
    Version(u64),
}

/// Small values with versions, and one lock, for each app.
///
/// Every method is cancel-safe in this sense: a dropped call has happened wholly or not at all.
#[async_trait]
pub trait StateStore: Send + Sync {
    /// The apps that anything is stored of.
    async fn apps(&self) -> Result<Vec<AppName>>;

    /// The value under a key.
    async fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>>;

    /// The keys that begin with `prefix`, in their order.
    async fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>>;

    /// Writes a value and returns its new version.
    ///
    /// # Errors
    /// `Conflict` where something else than `expected` is there, or the fence is old.
    async fn put(&self, fence: &Fence, key: &str, value: &str, expected: Expected) -> Result<u64>;

    /// Deletes the value of that version; one that is not there is no error.
    ///
    /// # Errors
    /// `Conflict` where another version is there, or the fence is old.
    async fn delete(&self, fence: &Fence, key: &str, version: u64) -> Result<()>;

    /// Takes the deploy lock for `ttl`, with an epoch greater than any before.
    ///
    /// # Errors
    /// `Conflict`, with the holder in its message and as `holder` in its context, while somebody
    /// else's lease runs. Whether it still runs is judged by a monotonic clock, never by
    /// comparing wall clocks.
    async fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease>;

    /// Holds the lock for `ttl` more.
    ///
    /// # Errors
    /// `Conflict` where it has been taken over.
    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()>;

    /// Gives the lock back; one that was lost already is no error.
    async fn release(&self, lease: &Lease) -> Result<()>;
}
