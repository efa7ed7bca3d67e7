//! The contracts of registries and coordinators, and faults, on a real ZooKeeper.
#![cfg(feature = "zookeeper")]
#![allow(clippy::unwrap_used)]

mod servers;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use deploykit_conformance::contract;
use deploykit_core::{ErrorKind, ServiceRegistry};
use deploykit_registry::{RegistryConfig, ZooKeeper};
use zookeeper_client::{Client, Error};

fn url(test: &str) -> Option<String> {
    let hosts = servers::hosts("DEPLOYKIT_TEST_ZOOKEEPER", test)?;
    Some(format!("zk://{hosts}/{}", servers::unique(test)))
}

async fn open(url: &str) -> ZooKeeper {
    ZooKeeper::open(RegistryConfig::from_url(url).unwrap()).await.unwrap()
}

#[tokio::test]
async fn registry() {
    let Some(url) = url("registry") else { return };
    contract::registry(&open(&url).await, &servers::kit()).await;
}

#[tokio::test]
async fn coordination() {
    let Some(url) = url("coordination") else { return };
    contract::coordination(&open(&url).await, "kit").await;
}

#[tokio::test]
async fn holds() {
    servers::hold().await;
}

#[tokio::test]
async fn a_killed_process_vanishes() {
    let Some(url) = url("killed") else { return };
    // And a tick of its servers, of 2 s.
    let bound = servers::TTL + Duration::from_secs(1 + 2);
    servers::vanishes_with_its_process(&open(&url).await, &url, bound).await;
}

#[tokio::test]
async fn a_frozen_process_registers_again() {
    let Some(url) = url("frozen") else { return };
    servers::comes_back_with_its_process(&open(&url).await, &url).await;
}

#[tokio::test]
async fn steps_of_the_clock_do_not_matter() {
    let Some(url) = url("clock") else { return };
    servers::outlives_steps_of_the_clock(&open(&url).await, &url).await;
}

#[tokio::test]
async fn a_thousand_register_at_once() {
    let Some(url) = url("thousand") else { return };
    let registry = open(&url).await;
    let ids: Vec<_> = (0..1000).map(|id| format!("kit-{id:04}")).collect();
    let register = ids.iter().map(|id| registry.register(servers::instance(id), servers::TTL));
    let held = futures_util::future::try_join_all(register).await.unwrap();
    servers::until(&registry, 1000).await;
    drop(held);
    servers::until(&registry, 0).await;
}

#[tokio::test]
async fn what_a_user_makes_is_the_users() {
    let Some(anyone) = url("digest") else { return };
    let (hosts, base) = anyone.trim_start_matches("zk://").split_once('/').unwrap();
    let ours = open(&format!("zk://me:p%40ss@{hosts}/{base}")).await;
    let held = ours.register(servers::instance("one"), servers::TTL).await.unwrap();
    let others = open(&anyone).await;
    assert_eq!(others.instances(&servers::kit()).await.unwrap().len(), 1, "all may read");
    let refused = others.register(servers::instance("two"), servers::TTL).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized, "{refused}");
    let raw = Client::connect(hosts).await.unwrap();
    assert_eq!(raw.delete(&format!("/{base}/kit/one"), None).await, Err(Error::NoAuth));
    let wrong = open(&format!("zk://me:wrong@{hosts}/{base}")).await;
    let refused = wrong.register(servers::instance("two"), servers::TTL).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unauthorized, "{refused}");
    contract::registry(&ours, &"other".parse().unwrap()).await;
    held.deregister().await.unwrap();
    assert_eq!(ours.instances(&servers::kit()).await.unwrap(), []);
}

/// A program of Java's, with Apache Curator's own discovery: see `testbed/curator`.
#[tokio::test(flavor = "multi_thread")]
async fn curator_finds_ours_and_is_found() {
    let Some(url) = url("curator") else { return };
    let Ok(curator) = std::env::var("DEPLOYKIT_TEST_CURATOR") else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "`testbed/run` names Curator");
        return println!("skipped: DEPLOYKIT_TEST_CURATOR is not set; `testbed/run` sets it");
    };
    let (hosts, base) = url.trim_start_matches("zk://").split_once('/').unwrap();
    let base = format!("/{base}");
    let registry = open(&url).await;
    let mut ours = servers::instance("ours");
    ours.metadata.insert("zone".into(), "rust".into());
    let _held = registry.register(ours, servers::TTL).await.unwrap();
    let plain = registry.register(servers::instance("plain"), servers::TTL).await.unwrap();

    let mut command = Command::new(&curator);
    command.args([hosts, &base, "register", "kit", "theirs", "10.0.0.7", "7070"]);
    let mut theirs = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(theirs.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "registered\n");
    // Theirs may have been written to another server than we read from.
    servers::until(&registry, 3).await;
    let found = registry.instances(&servers::kit()).await.unwrap();
    let found = found.iter().find(|instance| instance.id == "theirs").unwrap();
    assert_eq!(found.address.to_string(), "10.0.0.7:7070");
    assert_eq!(found.metadata["zone"], "java");

    let find = || {
        let output = Command::new(&curator).args([hosts, &base, "find", "kit"]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    };
    let expected = [
        "ours 10.0.0.1 80 {zone=rust}",
        "plain 10.0.0.1 80 {}",
        "theirs 10.0.0.7 7070 {zone=java}",
    ];
    assert_eq!(find(), expected);
    plain.deregister().await.unwrap();
    drop(theirs.stdin.take());
    assert!(theirs.wait().unwrap().success());
    servers::until(&registry, 1).await;
    assert_eq!(find(), expected[..1]);
}
