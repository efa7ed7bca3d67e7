//! Startup, readiness and liveness of an instance that changes its mind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::time::Duration;

use common::*;
use deploykit_agent::probe::{Health, Prober, Target};
use deploykit_core::model::{Probe, Probes};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;

/// Answers `/startup`, `/readiness` and `/liveness` by the status that is set for each.
struct Instance {
    origin: Origin,
    status: Arc<[AtomicU16; 3]>,
    asked: Arc<[AtomicUsize; 3]>,
}

const NAMES: [&str; 3] = ["startup", "readiness", "liveness"];

impl Instance {
    async fn start(statuses: [u16; 3]) -> Self {
        let status = Arc::new(statuses.map(AtomicU16::new));
        let asked: Arc<[AtomicUsize; 3]> = Arc::default();
        let (statuses, counts) = (status.clone(), asked.clone());
        let origin = Origin::raw(move |mut stream| {
            let (statuses, counts) = (statuses.clone(), counts.clone());
            async move {
                let head = read_head(&mut stream).await?;
                let which = NAMES.iter().position(|name| head.contains(name)).unwrap();
                counts[which].fetch_add(1, Ordering::SeqCst);
                let status = statuses[which].load(Ordering::SeqCst);
                stream.write_all(format!("HTTP/1.1 {status} It\r\n\r\n{which}").as_bytes()).await
            }
        })
        .await;
        Self { origin, status, asked }
    }

    fn set(&self, which: usize, status: u16) {
        self.status[which].store(status, Ordering::SeqCst);
    }

    fn asked(&self, which: usize) -> usize {
        self.asked[which].load(Ordering::SeqCst)
    }

    fn target(&self) -> Target {
        Target::new([(80, self.origin.addr)])
    }
}

fn probe(which: usize) -> Option<Probe> {
    let probe = Probe::http(format!("/{}", NAMES[which]));
    Some(probe.interval(Duration::from_millis(30)).timeout(DEADLINE))
}

async fn until(health: &mut watch::Receiver<Health>, what: impl FnMut(&Health) -> bool) -> Health {
    within(health.wait_for(what)).await.expect("the prober ended").clone()
}

#[tokio::test]
async fn startup_gates_the_others_and_readiness_follows_the_instance() {
    let instance = Instance::start([503, 200, 200]).await;
    let slow = probe(0).unwrap().failure_threshold(10_000);
    let probes = Probes { startup: Some(slow), readiness: probe(1), liveness: probe(2) };
    let mut health = Prober::spawn(probes, instance.target());
    eventually("startup is asked", || instance.asked(0) > 10).await;
    assert_eq!((instance.asked(1), instance.asked(2)), (0, 0));
    let last = health.borrow().last.clone().unwrap();
    assert_eq!((last.probe.as_str(), last.text.as_str()), ("startup", "503 It: 0"));
    assert!(!health.borrow().started && health.borrow().failing.is_none());

    instance.set(0, 200);
    let now = until(&mut health, |health| health.ready).await;
    assert!(now.started && now.last.is_none() && !now.restart);
    let asked = instance.asked(0);
    instance.set(1, 500);
    let now = until(&mut health, |health| !health.ready).await;
    let failing = until(&mut health, |health| health.failing.is_some()).await.failing.unwrap();
    assert_eq!((failing.probe.as_str(), failing.text.as_str()), ("readiness", "500 It: 1"));
    assert!(now.started && !now.restart);
    instance.set(1, 200);
    let now = until(&mut health, |health| health.ready && health.failing.is_none()).await;
    assert!(now.last.is_none());
    assert_eq!(instance.asked(0), asked, "startup is asked after it has passed");

    instance.set(2, 500);
    let now = until(&mut health, |health| health.restart).await;
    assert_eq!(now.failing.unwrap().probe, "liveness");
    // Then the prober has done its part.
    assert!(within(health.changed()).await.is_err());
}

#[tokio::test]
async fn a_startup_that_never_passes_asks_for_a_restart_and_says_why() {
    let instance = Instance::start([500, 200, 200]).await;
    let probes = Probes { startup: probe(0), readiness: probe(1), liveness: None };
    let mut health = Prober::spawn(probes, instance.target());
    let now = until(&mut health, |health| health.restart).await;
    assert!(!now.started && !now.ready);
    assert_eq!(now.failing.unwrap().text, "500 It: 0");
    assert_eq!(instance.asked(1), 0);
}

#[tokio::test]
async fn without_probes_an_instance_is_ready_and_nothing_is_asked_for_nobody() {
    let mut health = Prober::spawn(Probes::default(), Target::default());
    let now = until(&mut health, |health| health.ready).await;
    assert!(now.started && !now.restart);

    let instance = Instance::start([200; 3]).await;
    let probes = Probes { readiness: probe(1), ..Probes::default() };
    let mut health = Prober::spawn(probes, instance.target());
    until(&mut health, |health| health.ready).await;
    let other = health.clone();
    drop(health);
    let before = instance.asked(1);
    eventually("asked for the other receiver", || instance.asked(1) > before).await;
    drop(other);
    let mut before = usize::MAX;
    // Some question may be on its way still.
    while before != instance.asked(1) {
        before = instance.asked(1);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn an_instance_that_begins_to_listen_late_is_found() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    // The stated interval would never be reached within the test's deadline.
    let tcp = Probe::tcp().interval(Duration::from_secs(3600));
    let probes = Probes { readiness: Some(tcp), ..Probes::default() };
    let mut health = Prober::spawn(probes, Target::new([(80, addr)]));
    eventually("asked", || health.borrow().last.is_some()).await;
    assert!(health.borrow().last.as_ref().unwrap().text.contains("refused"));
    let _listener = tokio::net::TcpListener::bind(addr).await.unwrap();
    until(&mut health, |health| health.ready).await;
}
