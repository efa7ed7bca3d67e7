//! Balancing over the instances of a service.

pub(crate) mod hash;
mod options;
mod pick;
mod service;
mod snapshot;
mod state;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use deploykit_core::model::ServiceName;
use deploykit_core::{Error, ErrorKind, Registered, Result, ServiceRegistry};
use futures_util::StreamExt;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use self::options::Balancing;
pub use self::pick::Policy;
pub use self::service::{BalancedService, discover};
pub use self::snapshot::Snapshot;

use self::snapshot::Shared;
use self::state::{State, now};

/// How long the first list of instances may take.
const FIRST: Duration = Duration::from_secs(30);

/// The instances of a service as they come and go, and one of them for each call. Clones share
/// what is known of them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> deploykit_core::Result<()> {
/// use std::time::Duration;
/// use deploykit_core::model::{Address, ServiceName};
/// use deploykit_core::{Registered, ServiceRegistry, memory};
/// use deploykit_registry::{Balancer, Policy};
///
/// let registry = memory::Registry::default();
/// let posts = ServiceName::new("posts")?;
/// let address = Address { host: "10.0.0.1".into(), port: 80 };
/// let me = Registered::new(posts.clone(), "posts-1", address);
/// let _registration = registry.register(me, Duration::from_secs(10)).await?;
///
/// let balancer = Balancer::watch(&registry, &posts, Policy::PowerOfTwo).await?;
/// let peer = balancer.pick()?;
/// assert_eq!(peer.instance().id, "posts-1");
/// peer.succeeded();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Balancer {
    service: ServiceName,
    shared: Arc<ArcSwap<Shared>>,
    _watching: Arc<DropGuard>,
}

impl Balancer {
    /// Follows the instances of a service, from the first list on.
    ///
    /// Cancel-safe: nothing is left behind.
    ///
    /// # Errors
    /// Those of [`ServiceRegistry::watch`]; `Timeout` where it lists nothing.
    pub async fn watch(
        registry: &dyn ServiceRegistry,
        service: &ServiceName,
        balancing: impl Into<Balancing>,
    ) -> Result<Self> {
        let mut lists = registry.watch(service).await?;
        let first = tokio::time::timeout(FIRST, lists.next()).await;
        let first = first.ok().flatten().unwrap_or_else(|| {
            let message = "the registry listed nothing in time; trying again may help";
            let error =
                Error::new(ErrorKind::Timeout, "follow the instances of a service", message);
            Err(error.with("service", service))
        })?;
        let shared = Arc::new(ArcSwap::new(Snapshot::new(first, balancing).0));
        let current = shared.clone();
        let end = CancellationToken::new();
        let tied = end.clone();
        tokio::spawn(async move {
            let follow = async {
                while let Some(list) = lists.next().await {
                    match list {
                        Ok(list) => {
                            let next = Snapshot(current.load_full()).with(list);
                            current.store(next.0);
                        }
                        Err(error) => {
                            tracing::warn!(%error, "the instances are not followed any more")
                        }
                    }
                }
            };
            tokio::select! {
                () = tied.cancelled() => {}
                () = follow => {}
            }
        });
        let watching = Arc::new(end.drop_guard());
        Ok(Self { service: service.clone(), shared, _watching: watching })
    }

    /// An instance for the next call.
    ///
    /// # Errors
    /// `Unavailable` where there is none.
    #[inline]
    pub fn pick(&self) -> Result<Picked> {
        self.shared
            .load()
            .pick(Shared::choose)
            .map_err(|error| error.with("service", &self.service))
    }

    /// The instance of a key: the same one for the same key while the instances are the same, and
    /// for most keys when they change. Policies that do not hash take [`Policy::Maglev`]'s table.
    ///
    /// # Errors
    /// `Unavailable` where there is none.
    #[inline]
    pub fn pick_for(&self, key: &[u8]) -> Result<Picked> {
        let picked = self.shared.load().pick(|shared| shared.choose_for(key));
        picked.map_err(|error| error.with("service", &self.service))
    }

    /// The instances now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.shared.load_full())
    }
}

/// An instance that was picked for one call. While it lives, the call counts as in flight; say how
/// it ended by [`Picked::succeeded`] or [`Picked::failed`]: dropped, it counts for nothing.
pub struct Picked {
    state: Arc<State>,
    counted: bool,
    /// When it was, where the time to answer matters.
    since: Option<u64>,
}

impl Picked {
    #[inline]
    fn new(state: Arc<State>, policy: Policy) -> Self {
        let counted = policy.counts();
        if counted {
            state.begin();
        }
        Self { state, counted, since: (policy == Policy::PeakEwma).then(now) }
    }

    /// The instance.
    pub fn instance(&self) -> &Registered {
        &self.state.instance
    }

    /// The call was answered.
    #[inline]
    pub fn succeeded(self) {
        self.state.succeeded();
        if let Some(since) = self.since {
            self.state.answered(since);
        }
    }

    /// The call failed in a way that speaks against the instance. After five in a row it is left
    /// out for 10 s, and for so much longer each time again, while there are others.
    pub fn failed(self) {
        self.state.failed();
    }
}

impl Drop for Picked {
    #[inline]
    fn drop(&mut self) {
        if self.counted {
            self.state.end();
        }
    }
}

#[cfg(test)]
mod tests;
