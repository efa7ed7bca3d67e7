//! Agents within the test, and their clients.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deploykit_agent::control::Client;
use deploykit_agent::server::Agent;
use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{Fence, Lease};
use tokio::runtime::Handle;

pub const TTL: Duration = Duration::from_secs(30);

pub fn app() -> AppName {
    AppName::new("blog").unwrap()
}

pub fn service() -> ServiceName {
    ServiceName::new("web").unwrap()
}

pub fn fence(epoch: u64) -> Fence {
    Fence { app: app(), epoch }
}

/// The lease of an epoch, as its holder has it.
pub fn lease(epoch: u64, holder: &str) -> Lease {
    Lease { fence: fence(epoch), holder: holder.to_owned() }
}

pub fn open(folder: &Path) -> Arc<Agent> {
    Agent::open(folder, Handle::current()).unwrap()
}

/// A client whose every connection is one of its own.
pub fn client(agent: &Arc<Agent>) -> Client {
    let agent = Arc::clone(agent);
    Client::new(move || {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(Arc::clone(&agent).converse(theirs));
        async move { Ok(ours) }
    })
}
