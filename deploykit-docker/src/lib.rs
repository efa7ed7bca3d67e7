//! DeployKit on a Docker engine, from 20.10 (API 1.41) on.
//!
//! Instances are containers; what a plain engine has not is done by agents in containers of their
//! own: a keeper for each app (its state and secrets, and its probes), a proxy for each service
//! that listens (its name on the app's network and its published ports, balancing, draining), and
//! one for each set of secrets, which keeps them in memory.
//!
//! ```no_run
//! use std::sync::Arc;
//! use deploykit_core::Deployer;
//! use deploykit_docker::DockerConfig;
//! # async fn example() -> deploykit_core::Result<()> {
//! let backend = deploykit_docker::open(DockerConfig::from_url("docker://")?).await?;
//! let deployer = Deployer::new(Arc::new(backend));
//! # Ok(())
//! # }
//! ```
//!
//! Requests between services go to the service's name at the port that it declares. Public ports
//! are published on 127.0.0.1 where the engine is of this machine.

mod agent;
mod build;
mod config;
mod connect;
mod context;
mod credentials;
mod endpoints;
mod engine;
mod error;
mod exec;
mod files;
mod images;
mod instances;
mod keeper;
mod logs;
mod names;
mod networks;
mod objects;
mod observe;
mod runtime;
mod secrets;
mod seen;
mod socket;
mod terminal;
mod tls;
mod transport;
mod watch;

pub use build::Builder;
pub use config::{DockerConfig, Host, TlsFiles};
pub use runtime::{Docker, capabilities, open};
