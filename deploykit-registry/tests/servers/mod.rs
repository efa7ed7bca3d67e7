//! Where the real servers of the tests are.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

use std::process::{Child, Command};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use deploykit_core::model::{Address, ServiceName};
use deploykit_core::{Registered, ServiceRegistry};

/// In the environment of a process that registers and waits to be killed: the registry's URL.
pub(crate) const HOLD: &str = "DEPLOYKIT_TEST_HOLD";

pub(crate) const TTL: Duration = Duration::from_secs(4);

/// The hosts that the variable names; without it, a skip that is told, or under CI a failure.
pub(crate) fn hosts(variable: &str, test: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(hosts) => Some(hosts),
        Err(_) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("{variable} is not set: `testbed/run` sets it")
        }
        Err(_) => {
            println!("{test}: skipped: {variable} is not set; `testbed/run` sets it");
            None
        }
    }
}

/// A name that no other run uses.
pub(crate) fn unique(test: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{test}-{now}-{}", std::process::id())
}

pub(crate) fn kit() -> ServiceName {
    ServiceName::new("kit").unwrap()
}

pub(crate) fn instance(id: &str) -> Registered {
    Registered::new(kit(), id, Address { host: "10.0.0.1".into(), port: 80 })
}

/// Waits until so many instances are registered.
pub(crate) async fn until(registry: &dyn ServiceRegistry, count: usize) {
    let patience = Instant::now() + Duration::from_secs(60);
    loop {
        let found = registry.instances(&kit()).await.unwrap().len();
        if found == count {
            return;
        }
        assert!(Instant::now() < patience, "{found} instances, not {count}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a killed process had registered vanishes: the process is this program again, with its test
/// `holds` alone.
pub(crate) async fn vanishes_with_its_process(registry: &dyn ServiceRegistry, url: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let child = command.args(["--exact", "holds", "--nocapture"]).env(HOLD, url).spawn().unwrap();
    let child = Killed(child);
    until(registry, 1).await;
    tokio::time::sleep(TTL * 2).await;
    until(registry, 1).await;
    drop(child);
    until(registry, 0).await;
}

/// The process that is killed.
pub(crate) async fn hold() {
    if let Ok(url) = std::env::var(HOLD) {
        let registry = deploykit_registry::open(&url).await.unwrap();
        let _registration = registry.register(instance("held"), TTL).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
}

/// How many changes a watch is to outlive: 10,000 in the long series.
pub(crate) fn changes() -> u16 {
    std::env::var("DEPLOYKIT_CHANGES").map_or(1000, |changes| changes.parse().unwrap())
}
