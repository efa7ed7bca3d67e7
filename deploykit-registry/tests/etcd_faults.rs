//! What becomes of registrations and watches when etcd, or the way to it, breaks: with members of
//! the test's own.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used, clippy::panic)]

mod cluster;
mod servers;

use std::path::Path;
use std::time::{Duration, Instant};

use cluster::{Cluster, MEMBERS, address};
use deploykit_core::{Registered, Registration, ServiceRegistry};
use deploykit_registry::{Etcd, RegistryConfig};
use etcd_client::{Client, ConnectOptions};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use servers::TTL;

const INSTANCES: usize = 20;

fn member(folder: &Path, number: usize) -> Vec<String> {
    let peer = |number| format!("http://{}:2380", address(number));
    let all: Vec<_> = (1..=MEMBERS).map(|n| format!("m{n}={}", peer(n))).collect();
    let client = format!("http://{}:2379", address(number));
    let data = folder.join("data").display().to_string();
    [
        ["etcd", "--name", &format!("m{number}"), "--data-dir", &data].as_slice(),
        &["--listen-client-urls", &client, "--advertise-client-urls", &client],
        &["--listen-peer-urls", &peer(number), "--initial-advertise-peer-urls", &peer(number)],
        &["--initial-cluster", &all.join(",")],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

fn hosts() -> Vec<String> {
    (1..=MEMBERS).map(|number| format!("{}:2379", address(number))).collect()
}

/// A client of one member, or of all.
async fn raw(hosts: &[String]) -> Client {
    let options = ConnectOptions::new()
        .with_connect_timeout(Duration::from_secs(1))
        .with_timeout(Duration::from_secs(2));
    let patience = Instant::now() + Duration::from_secs(120);
    loop {
        if let Ok(mut client) = Client::connect(hosts, Some(options.clone())).await
            && client.get("any", None).await.is_ok()
        {
            return client;
        }
        assert!(Instant::now() < patience, "{hosts:?} never answered");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Bed {
    cluster: Cluster,
    etcd: Etcd,
}

/// Three members, unless this process only starts the one that does the test.
async fn bed(test: &str) -> Option<Bed> {
    if !cluster::alone(test, "DEPLOYKIT_TEST_ETCD") {
        return None;
    }
    let cluster = Cluster::start(member);
    for host in hosts() {
        raw(&[host]).await;
    }
    let url = format!("etcd://{}/{test}", hosts().join(","));
    let etcd = Etcd::open(RegistryConfig::from_url(&url).unwrap()).await.unwrap();
    Some(Bed { cluster, etcd })
}

impl Bed {
    async fn register(&self) -> Vec<Box<dyn Registration>> {
        let ids: Vec<_> = (0..INSTANCES).map(|id| format!("kit-{id:02}")).collect();
        let all = ids.iter().map(|id| self.etcd.register(servers::instance(id), TTL));
        let held = try_join_all(all).await.unwrap();
        servers::until(&self.etcd, INSTANCES).await;
        held
    }

    async fn leader(&self) -> usize {
        for (place, host) in hosts().into_iter().enumerate() {
            let status = raw(&[host]).await.status().await.unwrap();
            if status.leader() == status.header().unwrap().member_id() {
                return place + 1;
            }
        }
        panic!("nobody leads");
    }

    /// How many of the instances are missing at most, asked for twice their time to live.
    async fn loss(&self) -> usize {
        let end = Instant::now() + TTL * 2;
        let mut loss = 0;
        while Instant::now() < end {
            let found = self.etcd.instances(&servers::kit()).await.unwrap().len();
            loss = loss.max(INSTANCES - found);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        loss
    }
}

#[tokio::test]
async fn all_stopped_for_longer_than_the_time_to_live() {
    let Some(mut bed) = bed("all_stopped_for_longer_than_the_time_to_live").await else { return };
    let _held = bed.register().await;
    (1..=MEMBERS).for_each(|number| bed.cluster.kill(number));
    tokio::time::sleep(TTL * 2).await;
    (1..=MEMBERS).for_each(|number| bed.cluster.begin(number));
    raw(&hosts()).await;
    let back = Instant::now();
    servers::until(&bed.etcd, INSTANCES).await;
    let bound = TTL / 3 + Duration::from_secs(1);
    println!("all registered {:.1?} after etcd was back (promised: {bound:.1?})", back.elapsed());
    assert_eq!(bed.loss().await, 0);
}

#[tokio::test]
async fn the_leader_killed() {
    let Some(mut bed) = bed("the_leader_killed").await else { return };
    let _held = bed.register().await;
    let leader = bed.leader().await;
    bed.cluster.kill(leader);
    assert_eq!(bed.loss().await, 0);
    let more = bed.etcd.register(servers::instance("more"), TTL).await.unwrap();
    more.deregister().await.unwrap();
    bed.cluster.begin(leader);
    assert_eq!(bed.loss().await, 0);
}

#[tokio::test]
async fn a_minority_cut_off() {
    let Some(bed) = bed("a_minority_cut_off").await else { return };
    let _held = bed.register().await;
    let leader = bed.leader().await;
    bed.cluster.cut(leader);
    assert_eq!(bed.loss().await, 0, "while the leader is cut off");
    bed.cluster.heal(leader);
    assert_eq!(bed.loss().await, 0, "and when it is back");
    // One that only knows of the member that is cut off is told of what it missed once it is back.
    let host = &hosts()[leader - 1];
    let url = format!("etcd://{host}/a_minority_cut_off");
    let lonely = Etcd::open(RegistryConfig::from_url(&url).unwrap()).await.unwrap();
    let mut lists = lonely.watch(&servers::kit()).await.unwrap();
    assert_eq!(lists.next().await.unwrap().unwrap().len(), INSTANCES);
    bed.cluster.cut(leader);
    let _more = bed.etcd.register(servers::instance("more"), TTL).await.unwrap();
    bed.cluster.heal(leader);
    assert_eq!(lists.next().await.unwrap().unwrap().len(), INSTANCES + 1);
}

#[tokio::test]
async fn a_member_frozen() {
    let Some(bed) = bed("a_member_frozen").await else { return };
    let _held = bed.register().await;
    let leader = bed.leader().await;
    bed.cluster.freeze(leader);
    let thawed = Instant::now() + Duration::from_secs(15);
    while Instant::now() < thawed {
        assert_eq!(bed.loss().await, 0, "while a member is frozen");
    }
    bed.cluster.thaw(leader);
    assert_eq!(bed.loss().await, 0, "and when it is thawed");
}

/// Many changes of a few instances, whose ports count their changes, while members come and go.
#[tokio::test]
async fn ten_thousand_changes_and_a_watch_that_is_killed() {
    const CHANGES: u16 = 10_000;
    let Some(mut bed) = bed("ten_thousand_changes_and_a_watch_that_is_killed").await else {
        return;
    };
    let mut lists = bed.etcd.watch(&servers::kit()).await.unwrap();
    assert_eq!(lists.next().await.unwrap().unwrap(), []);
    let writing = tokio::spawn(async move {
        let mut raw = raw(&hosts()).await;
        for change in 1..=CHANGES {
            let key =
                format!("ten_thousand_changes_and_a_watch_that_is_killed/kit/{}", change % 50);
            let value = format!(r#"{{"Op":0,"Addr":"10.0.0.1:{change}"}}"#);
            while raw.put(key.as_str(), value.as_str(), None).await.is_err() {}
        }
    });
    let mut known = Vec::<Registered>::new();
    let mut kills = 0;
    let newest = |list: &[Registered]| list.iter().map(|i| i.address.port).max().unwrap_or(0);
    while newest(&known) < CHANGES {
        let list = lists.next().await.unwrap().unwrap();
        for instance in &known {
            let now = list.iter().find(|now| now.id == instance.id).unwrap();
            assert!(now.address.port >= instance.address.port, "what was told is told again");
        }
        assert_ne!(list, known, "what was told is told again");
        known = list;
        if newest(&known) / 1500 > kills {
            kills += 1;
            let number = usize::from(kills) % MEMBERS + 1;
            bed.cluster.kill(number);
            bed.cluster.begin(number);
            // Most members are to be there.
            raw(&hosts()[number - 1..number]).await;
        }
    }
    writing.await.unwrap();
    println!("{CHANGES} changes, {kills} members killed");
    let mut ports: Vec<_> = known.iter().map(|instance| instance.address.port).collect();
    ports.sort_unstable();
    assert_eq!(ports, (CHANGES - 49..=CHANGES).collect::<Vec<_>>(), "the last of each");
}
