//! Service registries, balancing and coordination.

mod config;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod keeper;

pub use config::{RegistryConfig, Scheme};
#[cfg(feature = "etcd")]
pub use etcd::Etcd;

/// A name as one part of a path.
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
fn segment(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}
