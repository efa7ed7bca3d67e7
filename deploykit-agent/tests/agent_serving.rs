//! Endpoints and targets, set through a client.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bed;
mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bed::{app, fence, service};
use common::*;
use deploykit_agent::control::{Client as Control, Hello, Listener, Target, Welcome};
use deploykit_agent::proxy::Mode;
use deploykit_agent::wire::{decode, encode, read_frame, write_frame};
use deploykit_core::model::{AppName, Probe, Probes};
use deploykit_core::{ErrorKind, Fence};
use tokio::io::AsyncWriteExt as _;

fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn http_at(address: SocketAddr) -> Vec<Listener> {
    vec![Listener { declared: 8080, address, mode: Mode::Http }]
}

fn target(address: impl ToString, probes: Probes) -> Target {
    Target { ports: vec![(8080, address.to_string())], probes, start: String::new() }
}

fn ids<const N: usize>(ids: [&str; N]) -> BTreeSet<String> {
    ids.map(str::to_owned).into()
}

fn gets(seed: u64) -> (&'static str, usize, usize) {
    ("GET", seed as usize % 3_000, 0)
}

async fn until_ready(control: &Control, instance: &str, ready: bool) {
    let mut changes = control.changes().await.unwrap();
    loop {
        let report = control.inspect().await.unwrap();
        if report.targets[instance].health.ready == ready {
            return;
        }
        within(changes.changed()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_are_replaced_through_the_client_without_a_failed_request() {
    let temporary = tempfile::tempdir().unwrap();
    let control = bed::client(&bed::open(temporary.path()));
    let (fence, web, address) = (fence(1), service(), free_address());
    control.set_endpoint(&fence, &web, http_at(address)).await.unwrap();
    let names = ["v1", "v2", "v3", "v4", "v5"];
    let mut origins = Vec::new();
    for name in names {
        origins.push(Origin::real(name, Duration::from_millis(1)).await);
    }
    let probes = Probes { readiness: Some(Probe::http("/0/2")), ..Probes::default() };
    control.set_target(&fence, "v1", target(origins[0].addr, probes.clone())).await.unwrap();
    control.route(&fence, &web, ids(["v1"])).await.unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let load = load_at(address, 16, 200, stop.clone(), gets);
    let requests = async || {
        let report = control.inspect().await.unwrap();
        report.endpoints[&web].listeners[0].1.requests
    };
    for pair in names.windows(2) {
        let (old, new) = (pair[0], pair[1]);
        let before = requests().await;
        while requests().await < before + 500 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let at = names.iter().position(|name| *name == new).unwrap();
        control.set_target(&fence, new, target(origins[at].addr, probes.clone())).await.unwrap();
        control.route(&fence, &web, ids([old, new])).await.unwrap();
        until_ready(&control, new, true).await;
        // The same listeners again, and a second client, change nothing.
        control.set_endpoint(&fence, &web, http_at(address)).await.unwrap();
        control.route(&fence, &web, ids([new])).await.unwrap();
        assert!(control.drain(&fence, &web, old, DEADLINE).await.unwrap());
        // Drained, so nobody may notice that it dies.
        origins[at - 1].kill();
        control.remove_target(&fence, old).await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    let load = load.await.unwrap();
    assert_eq!(load.failed, Vec::<String>::new(), "of {}", load.total());
    assert_eq!(load.served.len(), names.len(), "{:?}", load.served);
    let report = control.inspect().await.unwrap();
    assert_eq!(report.targets.keys().collect::<Vec<_>>(), ["v5"]);
    let stats = &report.endpoints[&web].listeners[0].1;
    assert_eq!((stats.failures, stats.retries), (0, 0), "{stats:?}");
}

#[tokio::test]
async fn an_agent_that_is_started_again_serves_the_same_without_a_client() {
    let temporary = tempfile::tempdir().unwrap();
    let (fence, web, address) = (fence(7), service(), free_address());
    let origin = Origin::real("a", Duration::ZERO).await;
    let named = format!("localhost:{}", origin.addr.port());
    let probes = Probes { readiness: Some(Probe::tcp()), ..Probes::default() };
    {
        let agent = bed::open(temporary.path());
        let control = bed::client(&agent);
        control.set_endpoint(&fence, &web, http_at(address)).await.unwrap();
        control.set_target(&fence, "a", target(&named, probes.clone())).await.unwrap();
        control.route(&fence, &web, ids(["a"])).await.unwrap();
        assert_eq!(Client::at(address).request("GET", 1, 10, 0).await.unwrap(), "a");
        agent.close(DEADLINE).await;
    }
    let agent = bed::open(temporary.path());
    let control = bed::client(&agent);
    let report = control.inspect().await.unwrap();
    assert!(report.targets["a"].health.ready, "what was ready is not told as otherwise");
    let mut client = Client::at(address);
    // It listens as soon as its first task runs, and requests wait for the instance.
    let mut answered = Err(String::new());
    for _ in 0..1000 {
        answered = client.request("GET", 2, 10, 0).await;
        if answered.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(answered.unwrap(), "a");
    assert_eq!(report.targets["a"].target, target(&named, probes));
    assert_eq!(report.endpoints[&web].routed, ids(["a"]));
    let old = Fence { epoch: 6, ..fence.clone() };
    let late = control.route(&old, &web, ids([])).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict, "the epoch outlives the agent");
}

#[tokio::test]
async fn requests_go_to_who_is_ready_and_a_failing_probe_is_told() {
    let temporary = tempfile::tempdir().unwrap();
    let control = bed::client(&bed::open(temporary.path()));
    let (fence, web, address) = (fence(1), service(), free_address());
    let well = Arc::new(AtomicBool::new(true));
    let sick = well.clone();
    let moody = Origin::raw(move |mut stream| {
        let sick = sick.clone();
        async move {
            loop {
                let head = read_head(&mut stream).await?;
                let status = if sick.load(Ordering::SeqCst) || !head.contains("/healthz") {
                    "200 OK"
                } else {
                    "500 Sick"
                };
                let answer =
                    format!("HTTP/1.1 {status}\r\nX-Instance: moody\r\nContent-Length: 0\r\n\r\n");
                stream.write_all(answer.as_bytes()).await?;
            }
        }
    })
    .await;
    let steady = Origin::real("steady", Duration::ZERO).await;
    let readiness = Probe::http("/healthz").interval(Duration::from_millis(20));
    let probes = Probes { readiness: Some(readiness), ..Probes::default() };
    control.set_endpoint(&fence, &web, http_at(address)).await.unwrap();
    control.set_target(&fence, "moody", target(moody.addr, probes)).await.unwrap();
    control.set_target(&fence, "steady", target(steady.addr, Probes::default())).await.unwrap();
    until_ready(&control, "moody", true).await;
    control.route(&fence, &web, ids(["moody"])).await.unwrap();
    let mut client = Client::at(address);
    assert_eq!(client.request("GET", 0, 0, 0).await.unwrap(), "moody");

    control.route(&fence, &web, ids(["moody", "steady"])).await.unwrap();
    well.store(false, Ordering::SeqCst);
    until_ready(&control, "moody", false).await;
    let failing = control.inspect().await.unwrap().targets["moody"].health.failing.clone().unwrap();
    assert_eq!((failing.probe.as_str(), failing.text.as_str()), ("readiness", "500 Sick"));
    for _ in 0..20 {
        assert_eq!(client.request("GET", 0, 0, 0).await.unwrap(), "steady");
    }
    well.store(true, Ordering::SeqCst);
    until_ready(&control, "moody", true).await;
    let mut seen = BTreeSet::new();
    for _ in 0..20 {
        seen.insert(client.request("GET", 0, 0, 0).await.unwrap());
    }
    assert_eq!(seen, ids(["moody", "steady"]));
}

#[tokio::test]
async fn what_cannot_be_is_refused_and_nothing_changes() {
    let temporary = tempfile::tempdir().unwrap();
    let control = bed::client(&bed::open(temporary.path()));
    let (new, web, address) = (fence(9), service(), free_address());
    control.set_endpoint(&new, &web, http_at(address)).await.unwrap();
    let before = control.inspect().await.unwrap();

    let probes = Probes { liveness: Some(Probe::exec(["/bin/true"])), ..Probes::default() };
    let exec = control.set_target(&new, "a", target(address, probes)).await.unwrap_err();
    assert_eq!(exec.kind(), ErrorKind::Unsupported);
    assert!(exec.message().starts_with("the liveness probe is a command"), "{exec}");
    for bad in ["", "web", "web:", ":80", "web:0", "web:99999"] {
        let error = control.set_target(&new, "a", target(bad, Probes::default())).await;
        let error = error.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert_eq!(error.problems()[0].path, "ports[0]");
        assert_eq!(error.problems()[0].what, format!("`{bad}` is no host with a port"));
    }

    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut both = http_at(free_address());
    both.extend(http_at(other.local_addr().unwrap()));
    let taken = control.set_endpoint(&new, &web, both).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists, "{taken}");

    let old = control.set_endpoint(&fence(8), &web, Vec::new()).await.unwrap_err();
    assert_eq!(old.kind(), ErrorKind::Conflict);
    let shop = Fence { app: AppName::new("shop").unwrap(), epoch: 9 };
    let foreign = control.remove_endpoint(&shop, &web).await.unwrap_err();
    assert_eq!(foreign.message(), "this agent serves the app blog; an app has agents of its own");
    let nowhere = deploykit_core::model::ServiceName::new("nowhere").unwrap();
    let none = control.route(&new, &nowhere, ids(["a"])).await.unwrap_err();
    assert_eq!(none.kind(), ErrorKind::NotFound);
    assert_eq!(control.inspect().await.unwrap(), before);
}

#[tokio::test]
async fn a_fence_is_held_against_the_locks_that_are_given_out_here() {
    use deploykit_core::StateStore as _;
    let temporary = tempfile::tempdir().unwrap();
    let control = bed::client(&bed::open(temporary.path()));
    let state = deploykit_agent::control::RemoteState::new(control.clone());
    let held = state.acquire(&app(), "me", bed::TTL).await.unwrap();
    let (web, address) = (service(), free_address());
    for wrong in [held.fence.epoch - 1, held.fence.epoch + 1] {
        let refused = control.set_endpoint(&fence(wrong), &web, http_at(address)).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Conflict);
    }
    control.set_endpoint(&held.fence, &web, http_at(address)).await.unwrap();
    state.release(&held).await.unwrap();
    let next = state.acquire(&app(), "other", bed::TTL).await.unwrap();
    let late = control.remove_endpoint(&held.fence, &web).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    control.remove_endpoint(&next.fence, &web).await.unwrap();
    assert!(control.inspect().await.unwrap().endpoints.is_empty());
}

#[tokio::test]
async fn another_version_is_named_by_both_sides() {
    // An agent of a later version.
    let control = Control::new(|| async {
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            read_frame(&mut theirs).await.unwrap();
            let welcome =
                Welcome { protocol: 2, program: "deploykit-agent 9.9.9 (protocol 2)".into() };
            write_frame(&mut theirs, &encode(&welcome).unwrap()).await.unwrap();
        });
        Ok(ours)
    });
    let refused = control.inspect().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(
        refused.message().starts_with("the agent is deploykit-agent 9.9.9 (protocol 2), and this"),
        "{refused}"
    );

    // A client of a later version is told ours, and then nothing.
    let temporary = tempfile::tempdir().unwrap();
    let (mut ours, theirs) = tokio::io::duplex(1 << 10);
    let agent = bed::open(temporary.path());
    let conversation = tokio::spawn(agent.converse(theirs));
    let hello = Hello { protocol: 2, program: "later".into() };
    write_frame(&mut ours, &encode(&hello).unwrap()).await.unwrap();
    let welcome: Welcome = decode(&read_frame(&mut ours).await.unwrap()).unwrap();
    assert_eq!(welcome.protocol, 1);
    assert!(read_frame(&mut ours).await.is_err());
    within(conversation).await.unwrap();
}

#[tokio::test]
async fn a_lost_connection_is_made_again_where_that_is_safe() {
    use deploykit_core::{Expected, StateStore as _};
    // Every agent hears one call, and is gone.
    let calls = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = calls.clone();
    let control = Control::new(move || {
        let count = count.clone();
        let (ours, mut theirs) = tokio::io::duplex(1 << 10);
        tokio::spawn(async move {
            read_frame(&mut theirs).await.unwrap();
            let welcome = Welcome { protocol: 1, program: String::new() };
            write_frame(&mut theirs, &encode(&welcome).unwrap()).await.unwrap();
            let mut changes = encode(&Ok::<_, ()>(())).unwrap();
            changes.splice(0..0, [0; 8]);
            write_frame(&mut theirs, &changes).await.unwrap();
            read_frame(&mut theirs).await.unwrap();
            count.fetch_add(1, Ordering::SeqCst);
        });
        async move { Ok(ours) }
    });
    let mut changes = control.changes().await.unwrap();
    within(changes.changed()).await.unwrap();
    let error = control.inspect().await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::Unavailable, true), "{error}");
    assert_eq!(calls.load(Ordering::SeqCst), 2, "asked again once");
    assert_eq!(within(changes.changed()).await.unwrap_err().kind(), ErrorKind::Unavailable);
    let state = deploykit_agent::control::RemoteState::new(control);
    let put = state.put(&fence(1), "key", "value", Expected::Absent).await.unwrap_err();
    assert_eq!(put.kind(), ErrorKind::Unavailable);
    assert_eq!(calls.load(Ordering::SeqCst), 3, "what may have happened is not asked again");
}

#[tokio::test]
async fn nonsense_ends_the_connection_and_nothing_else() {
    let temporary = tempfile::tempdir().unwrap();
    let agent = bed::open(temporary.path());
    let hello = encode(&Hello { protocol: 1, program: String::new() }).unwrap();
    for (greet, nonsense) in [
        (false, b"\xff\xff\xff\xff".to_vec()),
        (false, b"\0\0\0\x02{}".to_vec()),
        (true, b"\0\0\0\x02{}".to_vec()),
        (true, b"\x7f\xff\xff\xff".to_vec()),
        (true, b"\0\0\0\x20{\"id\":1,\"request\":\"no_such_thing\"}".to_vec()),
    ] {
        let (mut ours, theirs) = tokio::io::duplex(1 << 10);
        let conversation = tokio::spawn(Arc::clone(&agent).converse(theirs));
        if greet {
            write_frame(&mut ours, &hello).await.unwrap();
            read_frame(&mut ours).await.unwrap();
        }
        ours.write_all(&nonsense).await.unwrap();
        assert!(within(read_frame(&mut ours)).await.is_err());
        within(conversation).await.unwrap();
    }
    bed::client(&agent).inspect().await.unwrap();
}
