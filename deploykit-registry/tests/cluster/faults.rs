//! Faults that every kind of server has, and what must not become of registrations by them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deploykit_core::{Registered, Registration, ServiceRegistry};
use futures_util::StreamExt;
use futures_util::future::try_join_all;

use super::{Cluster, MEMBERS, Program, address, until};
use crate::servers;

const INSTANCES: usize = 20;

/// Longer than servers take to notice that their leader is gone, and to elect another one.
const TTL: Duration = Duration::from_secs(6);

/// A kind of servers.
pub(crate) struct Kind {
    pub(crate) scheme: &'static str,
    pub(crate) port: u16,
    /// Says that they are installed.
    pub(crate) variable: &'static str,
    pub(crate) program: Program,
    /// Whether the member at `host:port` leads; None where it does not answer, or follows nobody.
    pub(crate) leads: fn(&str) -> Option<bool>,
}

pub(crate) struct Bed {
    kind: Kind,
    pub(crate) cluster: Cluster,
    pub(crate) url: String,
    pub(crate) registry: Arc<dyn ServiceRegistry>,
}

impl Bed {
    /// Members that all answer, unless this process only starts the one that does the test.
    pub(crate) async fn start(kind: Kind, test: &str) -> Option<Self> {
        if !super::alone(test, kind.variable) {
            return None;
        }
        let cluster = Cluster::start(kind.program);
        for number in 1..=MEMBERS {
            until("a member answers", || (kind.leads)(&kind.host(number)).is_some());
        }
        let hosts: Vec<_> = (1..=MEMBERS).map(|number| kind.host(number)).collect();
        let url = format!("{}://{}/{test}", kind.scheme, hosts.join(","));
        let registry = deploykit_registry::open(&url).await.unwrap();
        Some(Self { kind, cluster, url, registry })
    }

    pub(crate) fn host(&self, number: usize) -> String {
        self.kind.host(number)
    }

    fn answers(&self, number: usize) {
        until("a member answers", || (self.kind.leads)(&self.host(number)).is_some());
    }

    fn leader(&self) -> usize {
        let leads = |number: &usize| (self.kind.leads)(&self.host(*number)) == Some(true);
        (1..=MEMBERS).find(leads).unwrap()
    }

    async fn register(&self) -> Vec<Box<dyn Registration>> {
        let ids: Vec<_> = (0..INSTANCES).map(|id| format!("kit-{id:02}")).collect();
        let all = ids.iter().map(|id| self.registry.register(servers::instance(id), TTL));
        let held = try_join_all(all).await.unwrap();
        servers::until(self.registry.as_ref(), INSTANCES).await;
        held
    }

    /// How many of the instances are missing at most, asked for twice their time to live. What
    /// nobody answers counts for nothing.
    async fn loss(&self) -> usize {
        let end = Instant::now() + TTL * 2;
        let mut loss = 0;
        while Instant::now() < end {
            if let Ok(found) = self.registry.instances(&servers::kit()).await {
                loss = loss.max(INSTANCES - found.len().min(INSTANCES));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        loss
    }

    pub(crate) async fn all_stopped(mut self) {
        let _held = self.register().await;
        (1..=MEMBERS).for_each(|number| self.cluster.kill(number));
        tokio::time::sleep(TTL * 2).await;
        (1..=MEMBERS).for_each(|number| self.cluster.begin(number));
        (1..=MEMBERS).for_each(|number| self.answers(number));
        let back = Instant::now();
        servers::until(self.registry.as_ref(), INSTANCES).await;
        let (took, bound) = (back.elapsed(), TTL / 3 + Duration::from_secs(1));
        println!("all registered {took:.2?} after the servers were back (promised: {bound:.2?})");
        assert_eq!(self.loss().await, 0);
    }

    pub(crate) async fn leader_killed(mut self) {
        let _held = self.register().await;
        let leader = self.leader();
        self.cluster.kill(leader);
        assert_eq!(self.loss().await, 0, "without the leader");
        let more = self.registry.register(servers::instance("more"), TTL).await.unwrap();
        more.deregister().await.unwrap();
        self.cluster.begin(leader);
        self.answers(leader);
        assert_eq!(self.loss().await, 0, "and when it is back");
    }

    pub(crate) async fn minority_cut_off(self) {
        let _held = self.register().await;
        let leader = self.leader();
        let others = Self::url_of(&self, &[leader % MEMBERS + 1, (leader + 1) % MEMBERS + 1]);
        let others = deploykit_registry::open(&others).await.unwrap();
        // One that only knows of the member that is cut off is told what it missed.
        let lonely = deploykit_registry::open(&self.url_of(&[leader])).await.unwrap();
        let mut lists = lonely.watch(&servers::kit()).await.unwrap();
        assert_eq!(lists.next().await.unwrap().unwrap().len(), INSTANCES);
        self.cluster.cut(leader);
        assert_eq!(self.loss().await, 0, "while the leader is cut off");
        let _more = others.register(servers::instance("more"), TTL).await.unwrap();
        self.cluster.heal(leader);
        while lists.next().await.unwrap().unwrap().len() != INSTANCES + 1 {}
        assert_eq!(self.loss().await, 0, "and when it is back");
    }

    fn url_of(&self, numbers: &[usize]) -> String {
        let hosts: Vec<_> = numbers.iter().map(|number| self.host(*number)).collect();
        let path = self.url.rsplit('/').next().unwrap();
        format!("{}://{}/{path}", self.kind.scheme, hosts.join(","))
    }

    pub(crate) async fn member_frozen(self) {
        let _held = self.register().await;
        let leader = self.leader();
        self.cluster.freeze(leader);
        let thaw = Instant::now() + Duration::from_secs(15);
        let mut loss = 0;
        while Instant::now() < thaw {
            loss = loss.max(self.loss().await);
        }
        self.cluster.thaw(leader);
        assert_eq!(loss, 0, "while a member was frozen");
        assert_eq!(self.loss().await, 0, "and when it is thawed");
    }

    /// Changes of fifty instances, whose ports count them, while members are killed.
    pub(crate) async fn many_changes(mut self, changes: u16) {
        const KILLS: u16 = 3;
        let mut lists = self.registry.watch(&servers::kit()).await.unwrap();
        assert_eq!(lists.next().await.unwrap().unwrap(), []);
        let writer = deploykit_registry::open(&self.url).await.unwrap();
        let writing = tokio::spawn(async move {
            let mut held = Vec::new();
            for change in 1..=changes {
                let mut instance = servers::instance(&format!("kit-{:02}", change % 50));
                instance.address.port = change;
                // Held on: dropping an older one of the same id changes nothing.
                loop {
                    match writer.register(instance.clone(), TTL).await {
                        Ok(registration) => break held.push(registration),
                        Err(error) => assert!(error.is_retryable(), "{error}"),
                    }
                }
            }
            held
        });
        let mut known = Vec::<Registered>::new();
        let (mut told, mut kills) = (0_u32, 0);
        let newest = |list: &[Registered]| list.iter().map(|i| i.address.port).max().unwrap_or(0);
        let complete = |list: &[Registered]| {
            let mut ports: Vec<_> = list.iter().map(|instance| instance.address.port).collect();
            ports.sort_unstable();
            ports == (changes - 49..=changes).collect::<Vec<_>>()
        };
        while !complete(&known) {
            let list = lists.next().await.unwrap().unwrap();
            assert_ne!(list, known, "what was told is told again");
            for instance in &list {
                let before = known.iter().find(|before| before.id == instance.id);
                let older =
                    before.is_none_or(|before| before.address.port <= instance.address.port);
                assert!(older, "{instance:?} after {before:?}");
            }
            told += 1;
            known = list;
            if kills < KILLS && newest(&known) / (changes / (KILLS + 1)) > kills {
                kills += 1;
                let number = usize::from(kills) % MEMBERS + 1;
                self.cluster.kill(number);
                self.cluster.begin(number);
                self.answers(number);
            }
        }
        println!("{changes} changes were told in {told} lists while {kills} members were killed");
        drop(writing.await.unwrap());
        servers::until(self.registry.as_ref(), 0).await;
    }
}

impl Kind {
    fn host(&self, number: usize) -> String {
        format!("{}:{}", address(number), self.port)
    }
}
