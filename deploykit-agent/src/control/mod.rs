//! What a deployer says to an agent that runs in a container: the protocol and the client.
//!
//! The agent (`deploykit-agent serve`) listens on a Unix socket beside its state;
//! `deploykit-agent connect`, run in the same container, joins its standard input and output to
//! that socket. Whatever carries those two streams (`docker exec -i`) carries a [`Client`].
//!
//! An agent has four roles, each used by asking for it:
//! * it keeps the state of apps ([`RemoteState`]) and their sealed secrets ([`RemoteSecrets`]);
//! * it asks the probes of instances, its *targets*;
//! * it serves endpoints: listeners that balance over the targets that are routed and ready;
//! * it writes files of secrets into a folder that instances mount.
//!
//! What it serves outlives it: an agent that is started again on the same state folder serves the
//! same endpoints with the same targets, without a deployer.
//!
//! ```no_run
//! use deploykit_agent::control::Client;
//! use deploykit_core::{Error, ErrorKind};
//! use tokio::net::UnixStream;
//! # async fn example() -> deploykit_core::Result<()> {
//! let client = Client::new(|| async {
//!     UnixStream::connect("/state/agent.sock").await.map_err(|e| {
//!         Error::new(ErrorKind::Unavailable, "connect to the agent", e.to_string())
//!     })
//! });
//! for (id, target) in client.inspect().await?.targets {
//!     println!("{id} is {}", if target.health.ready { "ready" } else { "not ready" });
//! }
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

mod client;
mod protocol;
#[cfg(feature = "seal")]
mod secrets;
mod state;

pub use client::{Changes, Client};
pub use protocol::{
    EndpointReport, Hello, Listener, PROTOCOL, Report, Request, SealedVersions, SecretFile, Target,
    TargetReport, Welcome,
};
#[cfg(feature = "seal")]
pub use secrets::RemoteSecrets;
pub use state::RemoteState;

/// Where an agent on a state folder listens.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join("agent.sock")
}

/// How agents and their clients call themselves, for people: `deploykit-agent 0.1.0 (protocol 1)`.
pub fn program() -> String {
    format!("deploykit-agent {} (protocol {PROTOCOL})", env!("CARGO_PKG_VERSION"))
}
