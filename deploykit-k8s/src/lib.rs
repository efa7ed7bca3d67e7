//! DeployKit on Kubernetes, and on what speaks its API.
//!
//! The modules without a client ([`names`], [`rollout`], [`Quantity`]) are there without the
//! feature `client`.

#[cfg(feature = "client")]
mod backend;
#[cfg(feature = "client")]
mod beside;
#[cfg(feature = "client")]
mod client;
#[cfg(feature = "client")]
mod cluster;
#[cfg(feature = "client")]
mod config;
#[cfg(feature = "client")]
mod coordination;
#[cfg(feature = "client")]
mod diagnose;
#[cfg(feature = "client")]
mod drift;
#[cfg(feature = "client")]
mod error;
#[cfg(feature = "client")]
mod exec;
#[cfg(feature = "client")]
mod execute;
#[cfg(feature = "client")]
mod images;
#[cfg(feature = "client")]
mod labels;
#[cfg(feature = "client")]
mod lock;
#[cfg(feature = "client")]
mod logs;
pub mod names;
#[cfg(feature = "client")]
mod objects;
#[cfg(feature = "client")]
mod observe;
#[cfg(feature = "client")]
mod owned;
#[cfg(feature = "client")]
mod pods;
mod quantity;
#[cfg(feature = "client")]
mod raw;
#[cfg(feature = "client")]
mod refuse;
#[cfg(feature = "client")]
mod registry;
#[cfg(feature = "client")]
mod render;
#[cfg(feature = "client")]
mod rights;
pub mod rollout;
#[cfg(feature = "client")]
mod secrets;
#[cfg(feature = "client")]
mod state;
#[cfg(feature = "client")]
mod view;
#[cfg(feature = "client")]
mod watch;
#[cfg(all(test, feature = "client"))]
mod wire_tests;

#[cfg(feature = "client")]
pub use backend::{K8s, capabilities};
#[cfg(feature = "client")]
pub use config::{K8sConfig, Public};
#[cfg(feature = "client")]
pub use coordination::Coordination;
pub use quantity::{Format, Quantity, QuantityError};
#[cfg(feature = "client")]
pub use registry::Registry;
#[cfg(feature = "client")]
pub use render::{render, render_resolved};
#[cfg(feature = "client")]
pub use rights::Right;
