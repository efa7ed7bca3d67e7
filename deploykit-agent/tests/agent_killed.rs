//! The program `deploykit-agent`, ended in every way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bed;
mod common;

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bed::*;
use common::*;
use deploykit_agent::control::{Client as Control, Listener, RemoteState, Target};
use deploykit_agent::proxy::Mode;
use deploykit_core::{Error, ErrorKind, Expected, StateStore};

/// How many seeds are tried where nothing else is said.
const SEEDS: u64 = 12;

/// A process that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn start(folder: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deploykit-agent"));
        command.arg("serve").arg("--state").arg(folder).stderr(Stdio::piped());
        Self(command.spawn().unwrap())
    }

    /// Waits until it says that it serves.
    fn wait(&mut self) {
        let mut line = String::new();
        BufReader::new(self.0.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(" serves at "), "{line}");
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        for _ in 0..3000 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it does not end");
    }
}

/// A client over `deploykit-agent connect`, as one through `docker exec` is.
fn through_connect(folder: &Path) -> Control {
    let folder = folder.to_owned();
    Control::new(move || {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_deploykit-agent"));
        command.arg("connect").arg("--state").arg(&folder).kill_on_drop(true);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        async move {
            let mut child =
                child.map_err(|e| Error::new(ErrorKind::Unavailable, "connect", e.to_string()))?;
            let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            tokio::spawn(async move { child.wait().await });
            Ok(tokio::io::join(stdout, stdin))
        }
    })
}

#[tokio::test]
async fn killed_at_any_moment_it_has_what_it_said_it_has() {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect(name));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("DEPLOYKIT_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let temporary = tempfile::tempdir().unwrap();
    let mut written: u64 = 0;
    let mut version = None;
    let mut last_epoch = 0;
    for seed in seeds {
        println!("SEED={seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut agent = Running::start(temporary.path());
        let state = RemoteState::new(through_connect(temporary.path()));
        // Of the one before, who is gone, the agent does not know that: its lease runs anew.
        let held = loop {
            match state.acquire(&app(), "me", Duration::from_millis(200)).await {
                Ok(held) => break held,
                Err(e) => assert_eq!(e.kind(), ErrorKind::Conflict, "{e}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert!(held.fence.epoch > last_epoch, "an epoch was given out twice");
        last_epoch = held.fence.epoch;

        let entry = state.get(&app(), "count").await.unwrap();
        let found = entry.as_ref().map(|entry| entry.value.trim().parse::<u64>().unwrap());
        // The last write may have happened without an answer.
        assert!(
            found.unwrap_or(0) == written || found == Some(written + 1),
            "{found:?} after {written} was written"
        );
        written = found.unwrap_or(0);
        let now = entry.map(|entry| entry.version);
        assert!(now >= version, "a version was given out twice: {now:?} after {version:?}");
        version = now;

        let pid = rustix::process::Pid::from_child(&agent.0);
        let after = Duration::from_micros(random.u64(0..60_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(after);
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        loop {
            // Longer than one write to the disk.
            let value = format!("{:>60000}", written + 1);
            let expected = version.map_or(Expected::Absent, Expected::Version);
            match state.put(&held.fence, "count", &value, expected).await {
                Ok(new) => (written, version) = (written + 1, Some(new)),
                Err(e) => {
                    assert_eq!(e.kind(), ErrorKind::Unavailable, "{e}");
                    break;
                }
            }
        }
        killer.join().unwrap();
        agent.ended().await;
    }
}

#[tokio::test]
async fn asked_to_end_it_lets_requests_end_and_its_successor_takes_over() {
    let temporary = tempfile::tempdir().unwrap();
    let mut agent = Running::start(temporary.path());
    agent.wait();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.0.id())).unwrap();
    let files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = files.split_whitespace().skip(3).take(2).collect();
    assert_eq!(numbers[0], numbers[1], "it takes as many descriptors as it may: {files}");
    let control = through_connect(temporary.path());
    let origin = Origin::real("slow", Duration::from_millis(400)).await;
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let listeners = vec![Listener { declared: 80, address, mode: Mode::Http }];
    control.set_endpoint(&fence(1), &service(), listeners).await.unwrap();
    let target = Target { ports: vec![(80, origin.addr.to_string())], ..Target::default() };
    control.set_target(&fence(1), "slow", target).await.unwrap();
    control.route(&fence(1), &service(), ["slow".to_owned()].into()).await.unwrap();

    let request = tokio::spawn(async move { Client::at(address).request("GET", 1, 10, 0).await });
    let connections = origin.connections.clone();
    eventually("the request is there", || {
        connections.load(std::sync::atomic::Ordering::SeqCst) > 0
    })
    .await;
    // It waits for the folder.
    let mut successor = Running::start(temporary.path());
    agent.signal(rustix::process::Signal::TERM);
    assert_eq!(request.await.unwrap().unwrap(), "slow");
    assert!(agent.ended().await.success());
    let mut rest = String::new();
    agent.0.stderr.take().unwrap().read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "");

    successor.wait();
    let report = control.inspect().await.unwrap();
    assert_eq!(report.targets.keys().collect::<Vec<_>>(), ["slow"]);
    assert_eq!(Client::at(address).request("GET", 2, 10, 0).await.unwrap(), "slow");
}

#[test]
fn its_words() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_deploykit-agent"));
        command.args(arguments).output().unwrap()
    };
    let version = run(&["--version"]);
    assert_eq!(
        String::from_utf8(version.stdout).unwrap(),
        format!("deploykit-agent {} (protocol 1)\n", env!("CARGO_PKG_VERSION"))
    );
    for wrong in [&[][..], &["serve", "x"], &["sing"]] {
        let refused = run(wrong);
        assert_eq!(refused.status.code(), Some(2));
        assert!(String::from_utf8(refused.stderr).unwrap().starts_with("usage: deploykit-agent"));
    }
    let temporary = tempfile::tempdir().unwrap();
    std::fs::write(temporary.path().join("apps"), "in the way").unwrap();
    let refused = run(&["serve", "--state", temporary.path().to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("something else is in the way"), "{text}");
}
