//! State and secrets that an agent keeps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod bed;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bed::*;
use deploykit_agent::control::{RemoteSecrets, RemoteState};
use deploykit_core::model::SecretName;
use deploykit_core::{
    ErrorKind, Expected, Lease, Result, SecretStore, SecretValue, StateStore, memory,
};
use proptest::prelude::*;

/// What a deployer may do; leases are named by the order in which they were given out.
#[derive(Clone, Debug)]
enum Step {
    Acquire {
        runs: bool,
    },
    Renew {
        lease: usize,
        runs: bool,
    },
    Release {
        lease: usize,
    },
    Put {
        lease: usize,
        key: usize,
        expected: Option<u64>,
    },
    Delete {
        lease: usize,
        key: usize,
        version: u64,
    },
    /// The agent ends and is started again: every lease runs anew.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let (lease, key, version) = (0..4_usize, 0..3_usize, 0..6_u64);
    prop_oneof![
        1 => any::<bool>().prop_map(|runs| Step::Acquire { runs }),
        1 => (lease.clone(), any::<bool>()).prop_map(|(lease, runs)| Step::Renew { lease, runs }),
        1 => lease.clone().prop_map(|lease| Step::Release { lease }),
        4 => (lease.clone(), key.clone(), prop::option::of(version.clone()))
            .prop_map(|(lease, key, expected)| Step::Put { lease, key, expected }),
        2 => (lease, key, version)
            .prop_map(|(lease, key, version)| Step::Delete { lease, key, version }),
        1 => Just(Step::Restart),
    ]
}

const KEYS: [&str; 3] = ["revisions/1", "revisions/2", "runs/migrate"];

/// The kind of error, or the value.
fn outcome<T>(result: Result<T>) -> Result<T, ErrorKind> {
    result.map_err(|e| e.kind())
}

/// The lease that was given out as that; where there was none, one that never was.
fn nth(leases: &[Lease], n: usize) -> Lease {
    leases.len().checked_sub(n + 1).map_or_else(|| lease(u64::MAX, "nobody"), |n| leases[n].clone())
}

async fn run(steps: Vec<Step>, folder: &Path) {
    let (app, model) = (app(), memory::State::default());
    let mut agent = open(folder);
    let mut state = RemoteState::new(client(&agent));
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    // Whether the lease runs, for a model that does not know of restarts.
    let ttl = |runs: bool| if runs { TTL } else { Duration::ZERO };
    for step in steps {
        match step.clone() {
            Step::Acquire { runs } => {
                let taken = state.acquire(&app, "us", ttl(runs)).await;
                let model = model.acquire(&app, "us", ttl(runs)).await;
                assert_eq!(taken.is_ok(), model.is_ok(), "{step:?}");
                ours.extend(taken);
                theirs.extend(model);
            }
            Step::Renew { lease, runs } => assert_eq!(
                outcome(state.renew(&nth(&ours, lease), ttl(runs)).await),
                outcome(model.renew(&nth(&theirs, lease), ttl(runs)).await),
                "{step:?}"
            ),
            Step::Release { lease } => assert_eq!(
                outcome(state.release(&nth(&ours, lease)).await),
                outcome(model.release(&nth(&theirs, lease)).await),
                "{step:?}"
            ),
            Step::Put { lease, key, expected } => {
                let expected = expected.map_or(Expected::Absent, Expected::Version);
                let value = format!("{step:?}");
                let (ours, theirs) = (nth(&ours, lease).fence, nth(&theirs, lease).fence);
                assert_eq!(
                    outcome(state.put(&ours, KEYS[key], &value, expected).await),
                    outcome(model.put(&theirs, KEYS[key], &value, expected).await),
                    "{step:?}"
                );
            }
            Step::Delete { lease, key, version } => {
                let (ours, theirs) = (nth(&ours, lease).fence, nth(&theirs, lease).fence);
                assert_eq!(
                    outcome(state.delete(&ours, KEYS[key], version).await),
                    outcome(model.delete(&theirs, KEYS[key], version).await),
                    "{step:?}"
                );
            }
            Step::Restart => {
                agent = open(folder);
                state = RemoteState::new(client(&agent));
                // The model's lease, where one is held and of any length, runs anew too; the
                // agent's has the length that the disk knows.
                continue;
            }
        }
        assert_eq!(state.apps().await.unwrap(), model.apps().await.unwrap());
        assert_eq!(state.keys(&app, "").await.unwrap(), model.keys(&app, "").await.unwrap());
        assert_eq!(
            state.keys(&app, "revisions/").await.unwrap(),
            model.keys(&app, "revisions/").await.unwrap()
        );
        for key in KEYS {
            assert_eq!(state.get(&app, key).await.unwrap(), model.get(&app, key).await.unwrap());
        }
    }
    drop(agent);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn state_is_kept_as_the_model_keeps_it(steps in prop::collection::vec(step(), 1..40)) {
        let temporary = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(steps, temporary.path()));
    }
}

#[tokio::test]
async fn of_many_who_want_the_lock_one_has_it() {
    let temporary = tempfile::tempdir().unwrap();
    let agent = open(temporary.path());
    let clients: Vec<_> = (0..8).map(|_| RemoteState::new(client(&agent))).collect();
    let mut last = 0;
    for round in 0..20 {
        let racers = clients.iter().enumerate().map(|(n, state)| async move {
            state.acquire(&app(), &format!("deployer {n}"), TTL).await
        });
        let results = futures_util::future::join_all(racers).await;
        let winners: Vec<_> = results.iter().filter_map(|r| r.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {results:?}");
        let winner = winners[0].clone();
        assert!(winner.fence.epoch > last);
        for loser in results.iter().filter_map(|r| r.as_ref().err()) {
            assert_eq!(loser.kind(), ErrorKind::Conflict);
            let holder = ("holder".to_owned(), winner.holder.clone());
            assert!(loser.context().contains(&holder), "{loser}");
        }
        if last > 0 {
            let late = clients[0].put(&fence(last), "late", "x", Expected::Absent).await;
            assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict, "an old holder writes");
        }
        last = winner.fence.epoch;
        clients[round % 8].release(&winner).await.unwrap();
    }
}

#[tokio::test]
async fn a_holder_that_is_gone_keeps_nobody_waiting_and_may_come_back() {
    let temporary = tempfile::tempdir().unwrap();
    let agent = open(temporary.path());
    let (first, second) = (RemoteState::new(client(&agent)), RemoteState::new(client(&agent)));
    let held = first.acquire(&app(), "first", TTL).await.unwrap();
    assert!(second.acquire(&app(), "second", TTL).await.is_err());
    // Renewed on another connection, it no more hangs on that it was taken on.
    let again = RemoteState::new(client(&agent));
    again.renew(&held, TTL).await.unwrap();
    drop(first);
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert!(second.acquire(&app(), "second", TTL).await.is_err());
    }
    drop(again);
    let taken = taken_by(&second, "second").await;
    let late = RemoteState::new(client(&agent)).renew(&held, TTL).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    assert!(taken.fence.epoch > held.fence.epoch);
}

async fn taken_by(state: &RemoteState, holder: &str) -> Lease {
    for _ in 0..3000 {
        if let Ok(lease) = state.acquire(&app(), holder, TTL).await {
            return lease;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the lock was never free");
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_lease_runs_anew_for_its_whole_time() {
    let temporary = tempfile::tempdir().unwrap();
    let agent = open(temporary.path());
    let holder = RemoteState::new(client(&agent));
    let held = holder.acquire(&app(), "first", TTL).await.unwrap();
    tokio::time::advance(TTL - Duration::from_secs(1)).await;

    let agent = open(temporary.path());
    let other = RemoteState::new(client(&agent));
    tokio::time::advance(TTL - Duration::from_secs(1)).await;
    let refused = other.acquire(&app(), "second", TTL).await.unwrap_err();
    assert!(refused.message().starts_with("first is deploying this app"), "{refused}");
    other.put(&held.fence, "key", "still the holder's", Expected::Absent).await.unwrap();
    tokio::time::advance(Duration::from_secs(2)).await;
    let taken = other.acquire(&app(), "second", TTL).await.unwrap();
    assert!(taken.fence.epoch > held.fence.epoch);
    let late = other.put(&held.fence, "key", "late", Expected::Version(1)).await.unwrap_err();
    assert_eq!(late.message(), "the deploy lock was taken over by second; run it again");
}

#[tokio::test]
async fn a_damaged_or_newer_file_is_refused_and_kept_and_others_go_on() {
    let temporary = tempfile::tempdir().unwrap();
    let state = RemoteState::new(client(&open(temporary.path())));
    let held = state.acquire(&app(), "me", TTL).await.unwrap();
    state.put(&held.fence, "key", "value", Expected::Absent).await.unwrap();
    let file = temporary.path().join("apps/blog.json");
    let whole = fs::read_to_string(&file).unwrap();
    let newer = whole.replacen("\"layout\":1", "\"layout\":2", 1);
    for (content, says) in [
        (whole.replace("value", "valve"), "it is damaged (its content does not fit its checksum)"),
        (newer, "it was written by a newer version of the agent (layout 2; this one knows 1)"),
        ("{}".to_owned(), "it is damaged (it does not say what it is)"),
    ] {
        fs::write(&file, &content).unwrap();
        let state = RemoteState::new(client(&open(temporary.path())));
        for refused in [
            state.get(&app(), "key").await.unwrap_err(),
            state.acquire(&app(), "me", TTL).await.unwrap_err(),
            state.put(&held.fence, "key", "x", Expected::Absent).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Corrupt);
            assert!(refused.message().contains(says), "{refused}");
            assert!(refused.message().contains("blog.json"), "{refused}");
        }
        assert_eq!(state.apps().await.unwrap(), [app()]);
        let other = deploykit_core::model::AppName::new("shop").unwrap();
        let held = state.acquire(&other, "me", TTL).await.unwrap();
        state.release(&held).await.unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), content, "left as it was");
    }
    fs::write(&file, &whole).unwrap();
    let state = RemoteState::new(client(&open(temporary.path())));
    assert_eq!(state.get(&app(), "key").await.unwrap().unwrap().value, "value");
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_of_the_call_has_happened() {
    let temporary = tempfile::tempdir().unwrap();
    let arguments = ["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"];
    let mounted = Command::new("mount").args(arguments).arg(temporary.path()).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        assert!(std::env::var_os("CI").is_none(), "CI must be able to mount a file system");
        println!("skipped: mounting a file system is not permitted to this user");
        return;
    }
    let state = RemoteState::new(client(&open(temporary.path())));
    let held = state.acquire(&app(), "me", TTL).await.unwrap();
    let version = state.put(&held.fence, "key", "1", Expected::Absent).await.unwrap();
    let filler = temporary.path().join("filler");
    let _ = fs::write(&filler, vec![7; 2 << 20]);
    let big = "x".repeat(64 << 10);
    let full = state.put(&held.fence, "key", &big, Expected::Version(version)).await.unwrap_err();
    assert_eq!((full.kind(), full.is_retryable()), (ErrorKind::Unavailable, true), "{full}");
    assert_eq!(full.message(), "no space is left; free some and run it again");
    assert_eq!(state.get(&app(), "key").await.unwrap().unwrap().value, "1");
    let reopened = RemoteState::new(client(&open(temporary.path())));
    assert_eq!(reopened.get(&app(), "key").await.unwrap().unwrap().value, "1");
    fs::remove_file(&filler).unwrap();
    state.put(&held.fence, "key", &big, Expected::Version(version)).await.unwrap();
    drop((state, reopened));
    let unmounted = Command::new("umount").arg("-l").arg(temporary.path()).status();
    assert!(unmounted.unwrap().success());
}

#[tokio::test]
async fn secrets_are_sealed_on_the_way_and_on_the_disk() {
    let temporary = tempfile::tempdir().unwrap();
    let (folder, keys) = (temporary.path().join("state"), temporary.path().join("keys"));
    let agent = open(&folder);
    let secrets = RemoteSecrets::new(client(&agent), &keys);
    let (app, db) = (app(), SecretName::new("db").unwrap());
    assert_eq!(secrets.versions(&app, &db).await.unwrap(), Vec::<u64>::new());
    assert_eq!(secrets.ensure(&app, &db, SecretValue::new("hunter2")).await.unwrap(), 1);
    assert_eq!(secrets.ensure(&app, &db, SecretValue::new("other")).await.unwrap(), 1);
    assert_eq!(secrets.put(&app, &db, SecretValue::new("hunter3")).await.unwrap(), 2);
    assert_eq!(secrets.list(&app).await.unwrap(), [(db.clone(), 2)]);

    // Another deployer, and an agent that was started again.
    let agent = open(&folder);
    let others = RemoteSecrets::new(client(&agent), &keys);
    assert_eq!(others.get(&app, &db, 1).await.unwrap().expose(), b"hunter2");
    let hexadecimal = "68756e74657232";
    for (path, needle) in [(&folder, "hunter2"), (&folder, hexadecimal)] {
        let found = Command::new("grep").args(["-r", needle]).arg(path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "{needle}");
    }

    others.delete(&app, &db, &[1, 2, 7]).await.unwrap();
    assert_eq!(others.versions(&app, &db).await.unwrap(), Vec::<u64>::new());
    assert_eq!(others.get(&app, &db, 1).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(others.list(&app).await.unwrap(), []);
    assert_eq!(others.put(&app, &db, SecretValue::new("x")).await.unwrap(), 3, "goes on counting");

    // Without the key nothing is read, and no second key is made in its place.
    let keyless = RemoteSecrets::new(client(&agent), temporary.path().join("other-keys"));
    let missing = keyless.get(&app, &db, 3).await.unwrap_err();
    assert!(missing.message().contains("put the key file back"), "{missing}");
    assert!(keyless.put(&app, &db, SecretValue::new("y")).await.is_err());
}

#[tokio::test]
async fn versions_that_are_set_at_once_are_all_kept() {
    let temporary = tempfile::tempdir().unwrap();
    let agent = open(&temporary.path().join("state"));
    let (app, db) = (app(), SecretName::new("db").unwrap());
    let keys = temporary.path().join("keys");
    let first = RemoteSecrets::new(client(&agent), &keys);
    first.put(&app, &db, SecretValue::new("0")).await.unwrap();
    let setters = (1..=6).map(|n| {
        let secrets = RemoteSecrets::new(client(&agent), &keys);
        let (app, db) = (&app, &db);
        async move { secrets.put(app, db, SecretValue::new(n.to_string())).await.map(|v| (v, n)) }
    });
    let set = futures_util::future::join_all(setters).await;
    for set in set {
        let (version, n) = set.unwrap();
        assert_eq!(first.get(&app, &db, version).await.unwrap(), SecretValue::new(n.to_string()));
    }
    assert_eq!(first.versions(&app, &db).await.unwrap(), [1, 2, 3, 4, 5, 6, 7]);
}
