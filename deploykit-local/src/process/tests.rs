#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn launch(folder: &Path, folder_id: &str, script: &str) -> Launch {
    Launch {
        executable: "/bin/sh".into(),
        name: "sh".into(),
        args: vec!["-c".into(), script.into()],
        env: BTreeMap::from([("PATH".into(), "/usr/bin:/bin".into())]),
        folder: folder.to_owned(),
        out: folder.join("out"),
        err: folder.join("err"),
        instance: "web-1".into(),
        folder_id: folder_id.into(),
    }
}

fn id() -> String {
    format!("test-{}-{:x}", std::process::id(), fastrand::u64(..))
}

async fn until(what: &str, mut check: impl FnMut() -> bool) {
    let deadline = Instant::now() + LONG;
    while !check() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn output_and_environment_are_exact() {
    let folder = tempfile::tempdir().unwrap();
    let mut launch = launch(
        folder.path(),
        "f",
        "echo out; echo err >&2; cat /proc/self/environ | tr '\\0' '\\n' | sort; exit 3",
    );
    launch.env.insert("HOSTILE".into(), "a'b\"c $x \\ *".into());
    let process = Process::spawn(&launch).unwrap();
    assert_eq!(process.exited().await, Exit::Code(3));
    assert_eq!(process.exited().await, Exit::Code(3), "asked again");
    let log = std::fs::read_to_string(&launch.out).unwrap();
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| !l.starts_with("PWD=") && !l.starts_with("_=") && !l.starts_with("SHLVL="))
        .collect();
    assert_eq!(
        lines,
        [
            "out",
            "DEPLOYKIT_FOLDER=f",
            "DEPLOYKIT_INSTANCE=web-1",
            "HOSTILE=a'b\"c $x \\ *",
            "PATH=/usr/bin:/bin"
        ]
    );
    assert_eq!(std::fs::read_to_string(&launch.err).unwrap(), "err\n");
}

#[tokio::test]
async fn a_stop_signal_is_heard_and_an_ignored_one_ends_in_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let polite =
        launch(folder.path(), "f", "trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done");
    let process = Process::spawn(&polite).unwrap();
    until("it is up", || std::fs::read_to_string(&polite.out).unwrap().contains("up")).await;
    assert_eq!(process.stop(Signal::TERM, LONG).await.unwrap(), Exit::Code(7));

    let mut deaf =
        launch(folder.path(), "f", "trap '' TERM; echo up; while :; do sleep 0.01; done");
    deaf.out = folder.path().join("deaf");
    let process = Process::spawn(&deaf).unwrap();
    until("it is up", || std::fs::read_to_string(&deaf.out).unwrap().contains("up")).await;
    assert_eq!(
        process.stop(Signal::TERM, Duration::from_millis(50)).await.unwrap(),
        Exit::Signal(9)
    );
    process.signal(Signal::TERM).unwrap();
}

#[tokio::test]
async fn the_group_ends_with_its_leader_and_the_sweep_finds_who_left_the_group() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, other) = (id(), id());
    let launch = launch(folder.path(), &mine, "sleep 1000 & setsid sleep 1000 & sleep 0.1; exit 0");
    let process = Process::spawn(&launch).unwrap();
    until("all three run", || {
        scan::marked(&mine).unwrap().iter().filter(|f| f.pid != process.identity().pid).count() >= 2
    })
    .await;
    assert_eq!(process.exited().await, Exit::Code(0));
    until("the group is gone", || scan::marked(&mine).unwrap().len() == 1).await;
    assert_eq!(
        scan::sweep(|| scan::marked(&other), |_| true).unwrap(),
        0,
        "another folder's are left alone"
    );
    assert_eq!(
        scan::sweep(|| scan::marked(&mine), |f| f.instance == "web-2").unwrap(),
        0,
        "another instance's too"
    );
    assert_eq!(scan::sweep(|| scan::marked(&mine), |f| f.instance == "web-1").unwrap(), 1);
    assert!(scan::marked(&mine).unwrap().is_empty());
}

#[tokio::test]
async fn orphans_are_found_ended_and_buried() {
    scan::take_orphans().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mine = id();
    let launch = launch(folder.path(), &mine, "setsid sleep 1000 & sleep 0.1; exit 0");
    let process = Process::spawn(&launch).unwrap();
    let leader = process.identity().pid;
    let others = || scan::marked(&mine).unwrap().iter().filter(|f| f.pid != leader).count();
    until("both run", || others() == 1).await;
    assert_eq!(process.exited().await, Exit::Code(0));
    let known = BTreeSet::from([leader]);
    let orphans = || scan::marked_orphans(&mine, &known);
    let pid = orphans().unwrap().first().expect("the one that left the group").pid;
    assert_eq!(scan::sweep(orphans, |f| f.instance == "web-2").unwrap(), 0);
    assert_eq!(scan::sweep(orphans, |f| f.instance == "web-1").unwrap(), 1);
    let mut ended = BTreeSet::new();
    until("it has ended", || {
        ended = scan::bury(&known, &BTreeSet::new()).unwrap();
        ended.contains(&pid)
    })
    .await;
    assert!(Stat::read(pid).unwrap().is_some(), "who has just ended may be waited for");
    scan::bury(&known, &BTreeSet::from([pid])).unwrap();
    assert_eq!(Stat::read(pid).unwrap(), None);
}

#[tokio::test]
async fn an_adopted_process_is_watched_and_its_exit_code_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::spawn(&launch(folder.path(), "f", "sleep 1000")).unwrap();
    let adopted = Process::adopt(process.identity().clone()).unwrap().unwrap();
    assert!(
        tokio::time::timeout(Duration::from_millis(20), adopted.exited()).await.is_err(),
        "it runs"
    );
    assert_eq!(adopted.stop(Signal::TERM, LONG).await.unwrap(), Exit::Lost);
    assert!(!Exit::Lost.is_success());
    assert_eq!(process.exited().await, Exit::Signal(15));
    assert!(Process::adopt(process.identity().clone()).unwrap().is_none(), "it is gone");
}

#[tokio::test]
async fn a_pid_of_another_start_or_boot_is_not_adopted() {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::spawn(&launch(folder.path(), "f", "sleep 1000")).unwrap();
    let same = process.identity();
    let earlier = Identity { started: same.started - 1, ..same.clone() };
    let before_boot = Identity { boot: "another".into(), ..same.clone() };
    assert!(Process::adopt(earlier).unwrap().is_none());
    assert!(Process::adopt(before_boot).unwrap().is_none());
    process.stop(Signal::KILL, LONG).await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_executed_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut missing = launch(folder.path(), "f", "");
    missing.executable = folder.path().join("missing");
    assert_eq!(Process::spawn(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
}
