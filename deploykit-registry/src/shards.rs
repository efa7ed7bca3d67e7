//! Shards of a service's data, spread over its living members.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::{
    Coordinator, Error, ErrorKind, Registered, Registration, Result, ServiceRegistry,
};
use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::balance::hash::{hash, mixed};

/// How long the first list of members may take.
const FIRST: Duration = Duration::from_secs(30);

/// Until what failed is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// A member's part of the shards of a service: each shard is owned by at most one of the living
/// members, and when one comes or goes, only the shards move that it gets or had.
///
/// A shard's owner is the member that [rendezvous hashing](https://en.wikipedia.org/wiki/Rendezvous_hashing)
/// ranks highest, once it holds the shard's lock; a member that is to give one up says so here
/// before it does. As with every lock, a member that was frozen does not know that it lost its
/// shards: what it writes has to carry the shard's token, and to be refused where a higher one was
/// seen.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> deploykit_core::Result<()> {
/// use std::sync::Arc;
/// use std::time::Duration;
/// use deploykit_core::model::{Address, ServiceName};
/// use deploykit_core::{Registered, memory};
/// use deploykit_registry::Shards;
///
/// let registry = Arc::new(memory::Registry::default());
/// let coordinator = Arc::new(memory::Coordination::default());
/// let address = Address { host: "10.0.0.1".into(), port: 80 };
/// let me = Registered::new(ServiceName::new("store")?, "store-1", address);
/// let ttl = Duration::from_secs(10);
/// let mut shards = Shards::join(registry, coordinator, me, 16, ttl).await?;
/// while shards.owned().len() < 16 {
///     shards.changed().await;
/// }
/// let shard = shards.shard_of(b"a key");
/// assert_eq!(shards.member_of(shard).map(|member| member.id), Some("store-1".into()));
/// println!("writes to shard {shard} carry the token {}", shards.owned()[&shard]);
/// shards.leave().await
/// # }
/// ```
pub struct Shards {
    count: u32,
    members: watch::Receiver<Vec<Registered>>,
    owned: watch::Receiver<BTreeMap<u32, u64>>,
    registration: Box<dyn Registration>,
    ended: watch::Receiver<()>,
    end: DropGuard,
}

impl Shards {
    /// Joins as `me` the members of its service, which share `count` shards, the same for all. What
    /// a member owns is lost when it is not heard of for `ttl`. Each shard that is owned is a lock,
    /// with a lease or session of its own.
    ///
    /// Cancel-safe: dropping the future takes it back.
    ///
    /// # Errors
    /// Those of registering and watching; `Timeout` where the members are not listed.
    pub async fn join(
        registry: Arc<dyn ServiceRegistry>,
        coordinator: Arc<dyn Coordinator>,
        me: Registered,
        count: u32,
        ttl: Duration,
    ) -> Result<Self> {
        let mut lists = registry.watch(&me.service).await?;
        let registration = registry.register(me.clone(), ttl).await?;
        let first = timeout(FIRST, lists.next()).await.ok().flatten().unwrap_or_else(|| {
            let message = "the registry listed no members in time; trying again may help";
            Err(Error::new(ErrorKind::Timeout, "join the members of a service", message))
        })?;
        let (listed, members) = watch::channel(first);
        let (owning, owned) = watch::channel(BTreeMap::new());
        let (ending, ended) = watch::channel(());
        let end = CancellationToken::new();
        let share = Share { coordinator, me, count, ttl, owning, end: end.clone() };
        tokio::spawn(async move {
            let follow = async {
                while let Some(list) = lists.next().await {
                    match list {
                        Ok(list) => drop(listed.send_replace(list)),
                        Err(error) => {
                            tracing::warn!(%error, "the members are not followed any more")
                        }
                    }
                }
                // Who does not know the members owns nothing.
                listed.send_replace(Vec::new());
                std::future::pending::<()>().await;
            };
            tokio::select! {
                () = follow => {}
                () = share.run(listed.subscribe()) => {}
            }
            drop(ending);
        });
        let end = end.drop_guard();
        Ok(Self { count, members, owned, registration, ended, end })
    }

    /// The shards that this member owns, each with its token. A shard that is not among them any
    /// more is not to be written from here.
    pub fn owned(&self) -> BTreeMap<u32, u64> {
        self.owned.borrow().clone()
    }

    /// Waits until other shards are owned, or other members are there. Cancel-safe.
    pub async fn changed(&mut self) {
        let (owned, members) = (self.owned.changed(), self.members.changed());
        let gone = tokio::select! {
            changed = owned => changed.is_err(),
            changed = members => changed.is_err(),
        };
        if gone {
            std::future::pending().await
        }
    }

    /// The shard of a key: the same in every member.
    pub fn shard_of(&self, key: &[u8]) -> u32 {
        u32::try_from(hash(key) % u64::from(self.count.max(1))).unwrap_or_default()
    }

    /// The member that owns a shard, or is about to. None while there is no member.
    pub fn member_of(&self, shard: u32) -> Option<Registered> {
        highest(&self.members.borrow(), shard).cloned()
    }

    /// Gives all shards back, and leaves the members.
    ///
    /// # Errors
    /// Those of deregistering.
    pub async fn leave(mut self) -> Result<()> {
        let deregistered = self.registration.deregister().await;
        drop(self.end);
        // Its sender is dropped when all is given back.
        while self.ended.changed().await.is_ok() {}
        deregistered
    }
}

fn highest(members: &[Registered], shard: u32) -> Option<&Registered> {
    let rank = |member: &&Registered| mixed(hash(member.id.as_bytes()), u64::from(shard) + 1);
    members.iter().max_by_key(rank)
}

/// What a member does for its shards.
struct Share {
    coordinator: Arc<dyn Coordinator>,
    me: Registered,
    count: u32,
    ttl: Duration,
    owning: watch::Sender<BTreeMap<u32, u64>>,
    end: CancellationToken,
}

impl Share {
    async fn run(self, mut members: watch::Receiver<Vec<Registered>>) {
        let share = Arc::new(self);
        let mut wanted = BTreeMap::<u32, DropGuard>::new();
        let mut tasks = JoinSet::new();
        loop {
            for shard in 0..share.count {
                let ours = highest(&members.borrow_and_update(), shard)
                    .is_some_and(|member| member.id == share.me.id);
                if !ours {
                    wanted.remove(&shard);
                } else if let Entry::Vacant(place) = wanted.entry(shard) {
                    let unwanted = CancellationToken::new();
                    tasks.spawn(share.clone().own(shard, unwanted.clone()));
                    place.insert(unwanted.drop_guard());
                }
            }
            tokio::select! {
                changed = members.changed() => if changed.is_err() { break },
                () = share.end.cancelled() => break,
                Some(_) = tasks.join_next() => {}
            }
        }
        wanted.clear();
        while tasks.join_next().await.is_some() {}
    }

    /// Owns a shard until it is not wanted any more.
    async fn own(self: Arc<Self>, shard: u32, unwanted: CancellationToken) {
        let name = format!("{}/shards/{shard}", self.me.service);
        loop {
            let lock = tokio::select! {
                lock = self.coordinator.lock(&name, &self.me.id, self.ttl) => lock,
                () = unwanted.cancelled() => return,
            };
            let lock = match lock {
                Ok(lock) => lock,
                Err(error) => {
                    tracing::warn!(%error, shard, "a shard is not owned; trying again");
                    sleep(AGAIN).await;
                    continue;
                }
            };
            self.owning.send_modify(|owned| {
                owned.insert(shard, lock.token());
            });
            let lost = tokio::select! {
                () = lock.lost() => true,
                () = unwanted.cancelled() => false,
            };
            // First nobody here writes to it, then it is given back.
            self.owning.send_modify(|owned| {
                owned.remove(&shard);
            });
            if !lost {
                if let Err(error) = lock.release().await {
                    tracing::warn!(%error, shard, "a shard is given back by its time to live");
                }
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use deploykit_core::memory;
    use deploykit_core::model::{Address, ServiceName};

    use super::*;

    const COUNT: u32 = 60;

    struct Bed {
        registry: Arc<memory::Registry>,
        coordinator: Arc<memory::Coordination>,
    }

    impl Bed {
        async fn join(&self, id: &str) -> Shards {
            let address = Address { host: "10.0.0.1".into(), port: 80 };
            let me = Registered::new(ServiceName::new("store").unwrap(), id, address);
            let ttl = Duration::from_secs(10);
            let (registry, coordinator) = (self.registry.clone(), self.coordinator.clone());
            Shards::join(registry, coordinator, me, COUNT, ttl).await.unwrap()
        }
    }

    /// Waits until each shard is owned by one of these, and by whom it is to be.
    async fn settled(members: &[&Shards]) -> Vec<BTreeMap<u32, u64>> {
        for _ in 0..60_000 {
            let all: Vec<_> = members.iter().map(|member| member.owned()).collect();
            let mut shards: Vec<_> = all.iter().flat_map(|owned| owned.keys().copied()).collect();
            shards.sort_unstable();
            let before = shards.len();
            shards.dedup();
            assert_eq!(before, shards.len(), "at most one owner");
            let settled = members.iter().zip(&all).all(|(member, owned)| {
                let listed = member.members.borrow().len() == members.len();
                let of = |shard| member.member_of(shard);
                listed && owned.keys().all(|shard| of(*shard) == of(*owned.keys().next().unwrap()))
            });
            if settled && shards.len() == COUNT as usize {
                return all;
            }
            sleep(Duration::from_millis(1)).await;
        }
        panic!("the shards never settled");
    }

    #[tokio::test]
    async fn shards_are_spread_and_few_move() {
        let bed = Bed { registry: Arc::default(), coordinator: Arc::default() };
        let a = bed.join("a").await;
        let b = bed.join("b").await;
        let two = settled(&[&a, &b]).await;
        let c = bed.join("c").await;
        let three = settled(&[&a, &b, &c]).await;
        assert!(three.iter().all(|owned| (10..32).contains(&owned.len())), "{three:?}");
        for (before, after) in two.iter().zip(&three) {
            let stayed = after.iter().all(|(shard, token)| before.get(shard) == Some(token));
            assert!(stayed, "only what the new one gets moves");
        }
        c.leave().await.unwrap();
        let back = settled(&[&a, &b]).await;
        for ((two, three), back) in two.iter().zip(&three).zip(&back) {
            assert_eq!(two.keys().collect::<Vec<_>>(), back.keys().collect::<Vec<_>>());
            for (shard, token) in back {
                let kept = three.get(shard) == Some(token);
                assert!(kept || *token > two[shard], "tokens grow with each owner");
            }
        }
        drop(b);
        settled(&[&a]).await;
    }

    #[tokio::test]
    async fn a_lost_shard_is_owned_again() {
        let bed = Bed { registry: Arc::default(), coordinator: Arc::default() };
        let a = bed.join("a").await;
        let before = settled(&[&a]).await.remove(0);
        bed.coordinator.lapse("store/shards/7");
        let mut a = a;
        while a.owned().get(&7).is_none_or(|token| *token == before[&7]) {
            a.changed().await;
        }
        assert!(a.owned()[&7] > before[&7]);
    }
}
