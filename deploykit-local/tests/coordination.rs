//! The contract of coordinators on an SQLite file, and a holder that was killed.
#![allow(clippy::unwrap_used)]

use std::process::Command;
use std::time::Duration;

use deploykit_conformance::contract;
use deploykit_core::Coordinator;
use deploykit_local::Coordination;

const HOLD: &str = "DEPLOYKIT_TEST_HOLD";

const TTL: Duration = Duration::from_secs(2);

#[tokio::test]
async fn coordination() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("locks.sqlite");
    contract::coordination(&Coordination::open(&file).await.unwrap(), "kit").await;
}

/// The process that is killed.
#[tokio::test]
async fn holds() {
    if let Ok(file) = std::env::var(HOLD) {
        let coordination = Coordination::open(&file).await.unwrap();
        let _lock = coordination.lock("one", "killed", TTL).await.unwrap();
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
}

#[tokio::test]
async fn what_a_killed_process_held_is_taken_over_and_a_frozen_one_learns_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("locks.sqlite");
    let coordination = Coordination::open(&file).await.unwrap();
    let first = coordination.lock("one", "first", TTL).await.unwrap();
    let token = first.token();
    first.release().await.unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args(["--exact", "holds", "--nocapture"]).env(HOLD, &file);
    let mut process = command.spawn().unwrap();
    let mut holders = coordination.holder("one").await.unwrap();
    let mut held = async |name: Option<&str>| {
        while futures_util::StreamExt::next(&mut holders).await.unwrap().unwrap().as_deref() != name
        {
        }
    };
    held(Some("killed")).await;
    let brief = tokio::time::timeout(TTL * 2, coordination.lock("one", "early", TTL)).await;
    assert!(brief.is_err(), "it is kept while its process lives");
    process.kill().unwrap();
    process.wait().unwrap();
    held(None).await;
    let second = coordination.lock("one", "second", TTL).await.unwrap();
    assert!(second.token() > token + 1);

    // As if it had been frozen: somebody else has taken over meanwhile.
    let file = rusqlite::Connection::open(&file).unwrap();
    file.execute("UPDATE locks SET token = token + 1, holder = 'third'", ()).unwrap();
    second.lost().await;
    second.release().await.unwrap();
    let holder: String = file.query_row("SELECT holder FROM locks", (), |row| row.get(0)).unwrap();
    assert_eq!(holder, "third", "who has lost it takes it from nobody");
}
