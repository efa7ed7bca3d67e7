//! DeployKit on plain OS processes: no daemon, no container engine, nothing to install.
//!
//! A supervisor hosts the instances of a state folder: it starts them, starts them again when they
//! crash, asks their probes, balances requests over them, and keeps revisions and encrypted secrets
//! in an SQLite file. It is the program itself, executed again ([`Lifetime::Detached`]), or a thread
//! of it ([`Lifetime::Program`]).
//!
//! ```
//! use deploykit_core::Runtime as _;
//! use deploykit_local::{Lifetime, Local, LocalConfig};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> deploykit_core::Result<()> {
//! # let temporary = tempfile::tempdir().unwrap();
//! # let folder = temporary.path().join("state");
//! # let keys = temporary.path().join("keys");
//! let config = LocalConfig::new(&folder).keys(keys).lifetime(Lifetime::Program);
//! let local = Local::open(config).await?;
//! assert_eq!(local.name(), "local");
//! local.close().await;
//! assert!(!folder.exists(), "nothing was deployed, so nothing is left");
//! # Ok(())
//! # }
//! ```
//!
//! Requests come to an address of the service's own, 127.77.a.b, at the port that it declares.
//! Ports that are published are published on 127.0.0.1.

#[cfg(not(target_os = "linux"))]
compile_error!("deploykit-local runs on Linux only: it needs pidfds and /proc");

mod addresses;
mod autostart;
mod changes;
mod client;
mod config;
mod coordination;
mod database;
mod delivery;
mod error;
mod exec;
mod executables;
mod folder;
mod logs;
mod output;
mod process;
mod program;
mod protocol;
mod reexec;
mod runtime;
mod server;
mod stores;
mod supervisor;
mod terminal;

pub use autostart::{Scope, systemd_unit};
pub use config::{Lifetime, LocalConfig};
pub use coordination::Coordination;
pub use reexec::init;
pub use runtime::{Local, open};
