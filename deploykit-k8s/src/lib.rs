//! DeployKit on Kubernetes, and on what speaks its API.

pub mod names;
mod quantity;
pub mod rollout;

pub use quantity::{Format, Quantity, QuantityError};
