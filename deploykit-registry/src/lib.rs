//! Services that find each other and agree on a leader: a [`ServiceRegistry`] and a [`Coordinator`]
//! on etcd (feature `etcd`) and ZooKeeper (feature `zookeeper`), and a zone of the DNS (feature
//! `dns`), for programs that serve as much as for those that deploy.
//!
//! A registration is kept alive while it is held, and made again when its lease or session was
//! lost; a watch goes on after a cut where it was, or lists anew. A lock comes with a token that
//! grows with each holder: a holder that was frozen longer than its time to live does not know that
//! it lost the lock, on no such service
//! ([Jepsen on etcd](https://jepsen.io/analyses/etcd-3.4.3)), so what it protects has to refuse a
//! token lower than one it has seen.

mod balance;
mod config;
pub mod curator;
#[cfg(feature = "dns")]
mod dns;
#[cfg(any(feature = "dns", feature = "etcd", feature = "zookeeper"))]
mod error;
#[cfg(feature = "etcd")]
mod etcd;
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
mod keeper;
mod open;
mod shards;
#[cfg(feature = "zookeeper")]
mod zookeeper;

pub use balance::{BalancedService, Balancer, Balancing, Picked, Policy, Snapshot, discover};
pub use config::{RegistryConfig, Scheme};
pub use deploykit_core::{Coordinator, ServiceRegistry};
#[cfg(feature = "dns")]
pub use dns::{Dns, DnsResponder};
#[cfg(feature = "etcd")]
pub use etcd::Etcd;
pub use open::{coordinator, from_env, open};
pub use shards::Shards;
#[cfg(feature = "zookeeper")]
pub use zookeeper::ZooKeeper;

/// A name as one part of a path.
#[cfg(any(feature = "etcd", feature = "zookeeper"))]
fn segment(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F")
}
