//! What stores, registries and coordinators keep to, each testable by itself. What does not hold
//! panics.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "these are tests: what does not hold panics"
)]

use std::time::Duration;

use deploykit_core::model::{Address, AppName, SecretName, ServiceName};
use deploykit_core::{
    Coordinator, ErrorKind, Expected, Registered, Result, SecretStore, SecretValue,
    ServiceRegistry, StateStore,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep, timeout};

/// The longest that a change is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn conflicts<T: std::fmt::Debug>(result: Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict);
}

/// Tests a state store with an app of which it holds nothing.
pub async fn state(state: &dyn StateStore, app: &AppName) {
    let ttl = Duration::from_secs(30);
    let lease = state.acquire(app, "first", ttl).await.unwrap();
    let fence = &lease.fence;
    assert_eq!(fence.app, *app);
    conflicts(state.acquire(app, "second", ttl).await);
    state.renew(&lease, ttl).await.unwrap();

    assert_eq!(state.get(app, "a/1").await.unwrap(), None);
    let one = state.put(fence, "a/1", "{\"x\": \"it's \u{e4}\"}", Expected::Absent).await.unwrap();
    conflicts(state.put(fence, "a/1", "other", Expected::Absent).await);
    conflicts(state.put(fence, "a/2", "other", Expected::Version(one)).await);
    let entry = state.get(app, "a/1").await.unwrap().unwrap();
    assert_eq!((entry.key.as_str(), entry.version), ("a/1", one));
    assert_eq!(entry.value, "{\"x\": \"it's \u{e4}\"}");
    let two = state.put(fence, "a/1", "second", Expected::Version(one)).await.unwrap();
    assert_ne!(one, two);
    conflicts(state.put(fence, "a/1", "third", Expected::Version(one)).await);
    let large = "x".repeat(200_000);
    state.put(fence, "a/3", &large, Expected::Absent).await.unwrap();
    assert_eq!(state.get(app, "a/3").await.unwrap().unwrap().value, large);
    state.put(fence, "b/1", "1", Expected::Absent).await.unwrap();
    state.put(fence, "a/2", "1", Expected::Absent).await.unwrap();
    assert_eq!(state.keys(app, "a/").await.unwrap(), ["a/1", "a/2", "a/3"]);
    assert_eq!(state.keys(app, "").await.unwrap().len(), 4);
    assert!(state.apps().await.unwrap().contains(app));
    conflicts(state.delete(fence, "a/1", one).await);
    state.delete(fence, "a/1", two).await.unwrap();
    state.delete(fence, "a/1", two).await.unwrap();

    state.release(&lease).await.unwrap();
    state.release(&lease).await.unwrap();
    let short = Duration::from_secs(1);
    let next = state.acquire(app, "second", short).await.unwrap();
    assert!(next.fence.epoch > fence.epoch, "epochs grow");
    conflicts(state.put(fence, "a/9", "late", Expected::Absent).await);
    conflicts(state.renew(&lease, ttl).await);
    let taken = Instant::now();
    let third = loop {
        match state.acquire(app, "third", ttl).await {
            Ok(lease) => break lease,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Conflict);
                let named = error.context().contains(&("holder".into(), "second".into()));
                assert!(named && error.to_string().contains("second"), "{error}");
                assert!(taken.elapsed() < PATIENCE, "a lease has to end: {error}");
                sleep(Duration::from_millis(100)).await;
            }
        }
    };
    assert!(third.fence.epoch > next.fence.epoch);
    for key in state.keys(app, "").await.unwrap() {
        let version = state.get(app, &key).await.unwrap().unwrap().version;
        state.delete(&third.fence, &key, version).await.unwrap();
    }
    assert!(!state.apps().await.unwrap().contains(app), "nothing is stored of it");
    state.release(&third).await.unwrap();
    let fourth = state.acquire(app, "fourth", ttl).await.unwrap();
    assert!(fourth.fence.epoch > third.fence.epoch, "even when nothing was left");
    state.release(&fourth).await.unwrap();
}

/// Tests a secret store with an app of which it holds nothing; `readable` is what its backend
/// declares.
pub async fn secrets(secrets: &dyn SecretStore, app: &AppName, readable: bool) {
    let name = SecretName::new("api-key").unwrap();
    let value = |text: &str| SecretValue::new(text);
    assert!(secrets.versions(app, &name).await.unwrap().is_empty());
    assert!(secrets.list(app).await.unwrap().is_empty());
    assert_eq!(secrets.ensure(app, &name, value("one")).await.unwrap(), 1);
    assert_eq!(secrets.ensure(app, &name, value("two")).await.unwrap(), 1);
    let binary = SecretValue::new((0..=255_u8).collect::<Vec<_>>());
    assert_eq!(secrets.put(app, &name, binary.clone()).await.unwrap(), 2);
    assert_eq!(secrets.ensure(app, &name, value("three")).await.unwrap(), 2);
    assert_eq!(secrets.versions(app, &name).await.unwrap(), [1, 2]);
    let other = SecretName::new("other").unwrap();
    assert_eq!(secrets.put(app, &other, value("")).await.unwrap(), 1);
    let listed = secrets.list(app).await.unwrap();
    assert_eq!(listed, [(name.clone(), 2), (other.clone(), 1)]);
    if readable {
        assert_eq!(secrets.get(app, &name, 1).await.unwrap(), value("one"));
        assert_eq!(secrets.get(app, &name, 2).await.unwrap(), binary);
        let missing = secrets.get(app, &name, 3).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    } else {
        let refused = secrets.get(app, &name, 1).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
    }
    secrets.delete(app, &name, &[1, 7]).await.unwrap();
    assert_eq!(secrets.versions(app, &name).await.unwrap(), [2]);
    secrets.delete(app, &name, &[2]).await.unwrap();
    secrets.delete(app, &name, &[2]).await.unwrap();
    assert_eq!(secrets.list(app).await.unwrap(), [(other.clone(), 1)]);
    assert_eq!(secrets.put(app, &name, value("new")).await.unwrap(), 3, "never given out twice");
    secrets.delete(app, &name, &[3]).await.unwrap();
    secrets.delete(app, &other, &[1]).await.unwrap();
}

/// Follows a watch until it tells what is expected.
async fn until<T: PartialEq + std::fmt::Debug>(
    watch: &mut BoxStream<'static, Result<T>>,
    expected: &T,
) {
    let mut told = Vec::new();
    let found = timeout(PATIENCE, async {
        loop {
            let now = watch.next().await.expect("a watch does not end").unwrap();
            if now == *expected {
                return;
            }
            told.push(now);
        }
    });
    let found = found.await;
    assert!(found.is_ok(), "expected {expected:?}, told {told:?}");
}

/// Tests a registry with a service of which it knows no instance.
pub async fn registry(registry: &dyn ServiceRegistry, service: &ServiceName) {
    let ttl = Duration::from_secs(2);
    let at = |id: &str, port| {
        let mut instance =
            Registered::new(service.clone(), id, Address { host: "10.0.0.1".into(), port });
        instance.metadata.insert("zone".into(), "it's \"a\" \u{e4}".into());
        instance
    };
    let mut watch = registry.watch(service).await.unwrap();
    until(&mut watch, &vec![]).await;
    let b = registry.register(at("b", 2), ttl).await.unwrap();
    until(&mut watch, &vec![at("b", 2)]).await;
    let a = registry.register(at("a", 1), ttl).await.unwrap();
    until(&mut watch, &vec![at("a", 1), at("b", 2)]).await;
    assert_eq!(registry.instances(service).await.unwrap(), [at("a", 1), at("b", 2)]);
    let mut late = registry.watch(service).await.unwrap();
    until(&mut late, &vec![at("a", 1), at("b", 2)]).await;

    sleep(ttl * 2).await;
    let alive = registry.instances(service).await.unwrap();
    assert_eq!(alive.len(), 2, "registrations are kept alive: {alive:?}");
    a.deregister().await.unwrap();
    until(&mut watch, &vec![at("b", 2)]).await;
    let again = registry.register(at("a", 3), ttl).await.unwrap();
    until(&mut watch, &vec![at("a", 3), at("b", 2)]).await;
    drop(b);
    until(&mut watch, &vec![at("a", 3)]).await;
    again.deregister().await.unwrap();
    until(&mut watch, &vec![]).await;
    until(&mut late, &vec![]).await;
}

/// Tests a coordinator with the name of a lock that nobody holds.
pub async fn coordination(coordinator: &dyn Coordinator, name: &str) {
    let ttl = Duration::from_secs(2);
    let mut holders = coordinator.holder(name).await.unwrap();
    until(&mut holders, &None).await;
    let first = coordinator.lock(name, "first", ttl).await.unwrap();
    until(&mut holders, &Some("first".into())).await;
    let brief = Duration::from_millis(200);
    let refused = timeout(brief, coordinator.lock(name, "impatient", ttl)).await;
    assert!(refused.is_err(), "one holder at a time");
    let elsewhere = format!("{name}-other");
    let other = coordinator.lock(&elsewhere, "other", ttl).await.unwrap();
    other.release().await.unwrap();

    assert!(timeout(ttl * 2, first.lost()).await.is_err(), "a lock that is held is kept");
    let token = first.token();
    let (second, ()) = tokio::join!(coordinator.lock(name, "second", ttl), async {
        sleep(brief).await;
        first.release().await.unwrap();
    });
    let second = second.unwrap();
    assert!(second.token() > token, "tokens grow");
    until(&mut holders, &Some("second".into())).await;
    let token = second.token();
    drop(second);
    let third = timeout(PATIENCE, coordinator.lock(name, "third", ttl)).await;
    let third = third.expect("a dropped lock is free after its time").unwrap();
    assert!(third.token() > token);
    third.release().await.unwrap();
    until(&mut holders, &None).await;
}
