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

/// A process that registers an instance: this program again, with its test `holds` alone.
struct Holder(Child);

impl Holder {
    fn start(url: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "holds", "--nocapture"]).env(HOLD, url);
        Self(command.envs(environment.iter().copied()).spawn().unwrap())
    }

    fn signal(&self, signal: &str) {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a killed process had registered vanishes.
pub(crate) async fn vanishes_with_its_process(
    registry: &dyn ServiceRegistry,
    url: &str,
    bound: Duration,
) {
    let holder = Holder::start(url, &[]);
    until(registry, 1).await;
    tokio::time::sleep(TTL * 2).await;
    until(registry, 1).await;
    drop(holder);
    let killed = Instant::now();
    until(registry, 0).await;
    println!(
        "vanished {:.1?} after its process was killed (promised: {bound:.1?})",
        killed.elapsed()
    );
    let held = registry.register(instance("here"), TTL).await.unwrap();
    until(registry, 1).await;
    let ended = Instant::now();
    held.deregister().await.unwrap();
    let found = registry.instances(&kit()).await.unwrap();
    assert_eq!(found, [], "what is deregistered is gone at once");
    println!("vanished {:.1?} after it was deregistered", ended.elapsed());
}

/// A process that was frozen for longer than its time to live registers again.
pub(crate) async fn comes_back_with_its_process(registry: &dyn ServiceRegistry, url: &str) {
    let holder = Holder::start(url, &[]);
    until(registry, 1).await;
    holder.signal("-STOP");
    until(registry, 0).await;
    holder.signal("-CONT");
    let thawed = Instant::now();
    until(registry, 1).await;
    println!("registered again {:.1?} after its process was thawed", thawed.elapsed());
}

/// A clock that is set does not matter: times to live are kept by one that is not.
pub(crate) async fn outlives_steps_of_the_clock(registry: &dyn ServiceRegistry, url: &str) {
    let library = std::fs::read_dir("/usr/lib").unwrap().find_map(|folder| {
        let library = folder.unwrap().path().join("faketime/libfaketime.so.1");
        library.exists().then_some(library)
    });
    let Some(library) = library else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "libfaketime is not installed");
        return println!("skipped: libfaketime is not installed; `testbed/run` installs it");
    };
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (step, seen) = (file("step"), file("seen"));
    std::fs::write(&step, "+0").unwrap();
    let holder = Holder::start(
        url,
        &[
            ("LD_PRELOAD", library.to_str().unwrap()),
            ("FAKETIME_TIMESTAMP_FILE", &step),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            (CLOCK, &seen),
        ],
    );
    until(registry, 1).await;
    for hours in [5, -5, 0] {
        std::fs::write(&step, format!("{hours:+}h")).unwrap();
        let end = Instant::now() + TTL * 2;
        while Instant::now() < end {
            let found = registry.instances(&kit()).await.unwrap().len();
            assert_eq!(found, 1, "with a clock that is {hours} hours off");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let seen: i64 = std::fs::read_to_string(&seen).unwrap().parse().unwrap();
        assert_eq!((seen - seconds() + 600).div_euclid(3600), hours, "the clock was set");
    }
    drop(holder);
}

/// In the environment of a process that registers: the file in which it says what its clock says.
const CLOCK: &str = "DEPLOYKIT_TEST_CLOCK";

fn seconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_secs()).unwrap()
}

/// The process that is killed.
pub(crate) async fn hold() {
    if let Ok(url) = std::env::var(HOLD) {
        let registry = deploykit_registry::open(&url).await.unwrap();
        let _registration = registry.register(instance("held"), TTL).await.unwrap();
        let end = Instant::now() + Duration::from_secs(600);
        while Instant::now() < end {
            if let Ok(file) = std::env::var(CLOCK) {
                // Written aside: the other one never reads half of it.
                std::fs::write(format!("{file}.new"), seconds().to_string()).unwrap();
                std::fs::rename(format!("{file}.new"), file).unwrap();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
