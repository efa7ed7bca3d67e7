#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::Instant;

use deploykit_core::memory;
use deploykit_core::model::Address;

use super::*;

fn instances(ids: impl IntoIterator<Item = usize>) -> Vec<Registered> {
    let service = ServiceName::new("posts").unwrap();
    let instance = |id: usize| {
        let address = Address { host: "10.0.0.1".into(), port: 80 };
        let mut instance = Registered::new(service.clone(), format!("posts-{id:05}"), address);
        instance.metadata.insert("weight".into(), (1 + id % 3).to_string());
        instance
    };
    ids.into_iter().map(instance).collect()
}

/// How often each instance was picked.
fn counts(snapshot: &Snapshot, picks: usize) -> BTreeMap<String, f64> {
    let mut counts: BTreeMap<_, _> = snapshot.instances().map(|i| (i.id.clone(), 0.0)).collect();
    for _ in 0..picks {
        *counts.get_mut(&snapshot.pick().unwrap().instance().id).unwrap() += 1.0;
    }
    counts
}

/// The statistic of the chi-square test, less its degrees of freedom, in its standard deviations.
fn deviation(counts: &BTreeMap<String, f64>, expected: impl Fn(usize) -> f64) -> f64 {
    let one = |(place, count): (usize, &f64)| (count - expected(place)).powi(2) / expected(place);
    let free = (counts.len() - 1) as f64;
    (counts.values().enumerate().map(one).sum::<f64>() - free) / (2.0 * free).sqrt()
}

#[test]
fn round_robin_takes_turns() {
    let snapshot = Snapshot::new(instances(0..7), Policy::RoundRobin);
    assert!(counts(&snapshot, 700).values().all(|count| *count == 100.0));
}

#[test]
fn random_policies_are_even() {
    fastrand::seed(7);
    for policy in [
        Policy::LeastRequests,
        Policy::PowerOfTwo,
        Policy::PeakEwma,
        Policy::Rendezvous,
        Policy::BoundedLoad,
    ] {
        let snapshot = Snapshot::new(instances(0..100), policy);
        let found = deviation(&counts(&snapshot, 100_000), |_| 1000.0);
        assert!(found < 6.0, "{policy:?}: {found}");
    }
}

#[test]
fn weights_are_kept() {
    fastrand::seed(7);
    let snapshot = Snapshot::new(instances(0..99), Policy::Weighted);
    let share = |place: usize| 198_000.0 * (1 + place % 3) as f64 / 198.0;
    let found = deviation(&counts(&snapshot, 198_000), share);
    assert!(found < 6.0, "{found}");
}

#[test]
fn the_table_of_maglev_is_even() {
    let states = Snapshot::new(instances(0..100), Policy::Maglev);
    let mut places = vec![0_usize; 100];
    for instance in states.0.table() {
        places[*instance as usize] += 1;
    }
    let (least, most) = (places.iter().min().unwrap(), places.iter().max().unwrap());
    assert!(most - least <= 1, "{least} to {most} places");
}

/// The share of the keys that have another instance once one of `of` is gone.
fn moved(policy: Policy, of: usize, keys: usize) -> f64 {
    let before = Snapshot::new(instances(0..of), policy);
    let after = before.with(instances((0..of).filter(|id| *id != of / 2)));
    let instance = |snapshot: &Snapshot, key: usize| {
        snapshot.pick_for(&key.to_le_bytes()).unwrap().instance().id.clone()
    };
    let moved = (0..keys).filter(|key| instance(&before, *key) != instance(&after, *key));
    moved.count() as f64 / keys as f64
}

#[test]
fn few_keys_move() {
    for policy in [Policy::Rendezvous, Policy::BoundedLoad] {
        let share = moved(policy, 50, 10_000);
        assert!((0.005..0.04).contains(&share), "{policy:?}: {share}");
    }
    let share = moved(Policy::Maglev, 50, 10_000);
    assert!((0.005..0.1).contains(&share), "{share}");
    let share = moved(Policy::Maglev, 1_000, 10_000);
    assert!(share < 0.2, "{share}");
}

/// With more than any table or ring is made for: every policy still reaches all of them alike, and
/// keys stay where they are.
#[test]
fn ten_thousand_endpoints() {
    fastrand::seed(7);
    const N: usize = 10_000;
    for policy in [Policy::RoundRobin, Policy::PowerOfTwo, Policy::PeakEwma] {
        let snapshot = Snapshot::new(instances(0..N), policy);
        let counts = counts(&snapshot, 10 * N);
        let found = deviation(&counts, |_| 10.0);
        assert!(found < 6.0, "{policy:?}: {found}");
    }
    let weighted = counts(&Snapshot::new(instances(0..N), Policy::Weighted), 20 * N);
    // A third each of the weights 1, 2 and 3.
    let found = deviation(&weighted, |place| 10.0 * (1 + place % 3) as f64);
    assert!(found < 6.0, "{found}");
    let table = Snapshot::new(instances(0..N), Policy::Maglev);
    let mut places = vec![0_usize; N];
    table.0.table().iter().for_each(|instance| places[*instance as usize] += 1);
    let (least, most) = (places.iter().min().unwrap(), places.iter().max().unwrap());
    assert!(most - least <= 1 && *least > 0, "{least} to {most} places");
    for (policy, most) in [(Policy::Rendezvous, 0.005), (Policy::Maglev, 0.25)] {
        let share = moved(policy, N, 500);
        assert!(share <= most, "{policy:?}: {share}");
    }
}

#[test]
fn load_is_bounded() {
    let snapshot = Snapshot::new(instances(0..10), Policy::BoundedLoad);
    let held: Vec<_> = (0..100).map(|_| snapshot.pick_for(b"one key").unwrap()).collect();
    let mut calls = BTreeMap::<_, usize>::new();
    for picked in &held {
        *calls.entry(&picked.instance().id).or_default() += 1;
    }
    assert!(calls.values().all(|calls| *calls <= 13), "{calls:?}");
}

#[test]
fn calls_in_flight_count() {
    for policy in [Policy::LeastRequests, Policy::PowerOfTwo, Policy::PeakEwma] {
        let snapshot = Snapshot::new(instances(0..2), policy);
        let first = snapshot.pick().unwrap();
        let second = snapshot.pick().unwrap();
        assert_ne!(first.instance().id, second.instance().id, "{policy:?}");
    }
}

#[test]
fn the_slower_one_gets_less() {
    fastrand::seed(7);
    let snapshot = Snapshot::new(instances(0..2), Policy::PeakEwma);
    for state in &snapshot.0.states {
        let slow = state.instance.id == "posts-00000";
        state.took(if slow { 100e6 } else { 1e6 }, now());
    }
    let counts = counts(&snapshot, 100);
    assert_eq!(counts["posts-00001"], 100.0);
}

#[test]
fn what_fails_is_left_out() {
    for policy in [
        Policy::RoundRobin,
        Policy::Weighted,
        Policy::LeastRequests,
        Policy::PowerOfTwo,
        Policy::PeakEwma,
        Policy::Rendezvous,
        Policy::Maglev,
        Policy::BoundedLoad,
    ] {
        let snapshot = Snapshot::new(instances(0..3), policy);
        let fail = |place: usize| (0..5).for_each(|_| snapshot.0.states[place].failed());
        fail(1);
        let counts = counts(&snapshot, 100);
        assert_eq!(counts["posts-00001"], 0.0, "{policy:?}");
        assert_eq!(counts.values().sum::<f64>(), 100.0);
        fail(0);
        fail(2);
        assert!(snapshot.pick().is_ok(), "{policy:?}: where all are left out, none is");
    }
}

#[tokio::test]
async fn a_balancer_follows_its_registry() {
    let registry = memory::Registry::default();
    let service = ServiceName::new("posts").unwrap();
    let balancer = Balancer::watch(&registry, &service, Policy::RoundRobin).await.unwrap();
    let none = balancer.pick().err().unwrap();
    assert_eq!(none.kind(), ErrorKind::Unavailable);
    let instance = instances(0..1).remove(0);
    let registration = registry.register(instance.clone(), Duration::from_secs(1)).await.unwrap();
    let patience = Instant::now() + Duration::from_secs(60);
    while balancer.pick().is_err() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(*balancer.pick().unwrap().instance(), instance);
    registration.deregister().await.unwrap();
    while balancer.pick().is_ok() && Instant::now() < patience {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(balancer.pick().is_err());
}

#[test]
fn the_own_zone_comes_first() {
    let mut all = instances(0..9);
    for (id, instance) in all.iter_mut().enumerate() {
        let zone = if id < 3 { "here" } else { "there" };
        instance.metadata.insert("zone".into(), zone.into());
    }
    for policy in [Policy::RoundRobin, Policy::PowerOfTwo, Policy::Maglev] {
        let snapshot = Snapshot::new(all.clone(), Balancing::from(policy).zone("here"));
        let near: f64 = counts(&snapshot, 300).values().take(3).sum();
        assert_eq!(near, 300.0, "{policy:?}");
        for state in &snapshot.0.states[..3] {
            (0..5).for_each(|_| state.failed());
        }
        let near: f64 = counts(&snapshot, 300).values().take(3).sum();
        assert_eq!(near, 0.0, "{policy:?}: all of the zone are left out");
        let elsewhere = Snapshot::new(all.clone(), Balancing::from(policy).zone("nowhere"));
        assert!(elsewhere.pick().is_ok(), "{policy:?}");
    }
}

#[test]
fn who_comes_anew_starts_slowly() {
    fastrand::seed(7);
    for policy in [Policy::RoundRobin, Policy::Weighted, Policy::PowerOfTwo, Policy::LeastRequests]
    {
        let balancing = Balancing::from(policy).slow_start(Duration::from_secs(3600));
        let before = Snapshot::new(instances([0, 3, 6]), balancing);
        assert!(counts(&before, 4000)["posts-00000"] > 800.0, "{policy:?}: from the start");
        let after = before.with(instances([0, 3, 6, 9]));
        let counts = counts(&after, 4000);
        assert!((50.0..200.0).contains(&counts["posts-00009"]), "{policy:?}: {counts:?}");
        let others = ["posts-00000", "posts-00003", "posts-00006"].map(|id| counts[id]);
        assert!(others.iter().all(|count| *count > 1100.0), "{policy:?}: {counts:?}");
    }
    let balancing = Balancing::from(Policy::RoundRobin).slow_start(Duration::from_nanos(1));
    let after = Snapshot::new(instances(0..1), balancing).with(instances(0..2));
    assert!(counts(&after, 100).values().all(|count| *count == 50.0), "its time is over");
}

#[tokio::test]
async fn a_service_calls_what_is_picked_and_learns_from_it() {
    let registry = memory::Registry::default();
    let service = ServiceName::new("posts").unwrap();
    let mut held = Vec::new();
    for instance in instances(0..2) {
        held.push(registry.register(instance, Duration::from_secs(1)).await.unwrap());
    }
    let balancer = Balancer::watch(&registry, &service, Policy::RoundRobin).await.unwrap();
    let mut balanced = balancer.service(|instance: &Registered| {
        let id = instance.id.clone();
        ::tower::service_fn(move |(): ()| {
            let answer = if id == "posts-00000" { Err("it broke") } else { Ok(id.clone()) };
            async { answer }
        })
    });
    let mut failed = 0;
    for _ in 0..100 {
        match ::tower::Service::call(&mut balanced, ()).await {
            Ok(id) => assert_eq!(id, "posts-00001"),
            Err(error) => {
                assert_eq!(error.to_string(), "it broke");
                failed += 1;
            }
        }
    }
    assert_eq!(failed, 5, "after that it is left out");
}

#[tokio::test]
async fn towers_own_balancer_follows_a_registry() {
    use ::tower::load::{CompleteOnResponse, PendingRequests};
    use ::tower::{Service, ServiceExt};
    let registry = memory::Registry::default();
    let service = ServiceName::new("posts").unwrap();
    let mut found = instances(0..2).into_iter();
    let first = registry.register(found.next().unwrap(), Duration::from_secs(1)).await.unwrap();
    let make = |instance: &Registered| {
        let id = instance.id.clone();
        let answer = ::tower::service_fn(move |(): ()| {
            let id = id.clone();
            async { Ok::<_, std::convert::Infallible>(id) }
        });
        PendingRequests::new(answer, CompleteOnResponse::default())
    };
    let discovered = discover(&registry, &service, make).await.unwrap();
    let mut balance = ::tower::balance::p2c::Balance::new(discovered);
    assert_eq!(balance.ready().await.unwrap().call(()).await.unwrap(), "posts-00000");
    let _second = registry.register(found.next().unwrap(), Duration::from_secs(1)).await.unwrap();
    first.deregister().await.unwrap();
    assert_eq!(balance.ready().await.unwrap().call(()).await.unwrap(), "posts-00001");
}
