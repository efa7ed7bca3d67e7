//! What becomes of registrations and watches when etcd, or the way to it, breaks: with members of
//! the test's own.
#![cfg(feature = "etcd")]
#![allow(clippy::unwrap_used)]

mod cluster;
mod servers;

use std::path::Path;
use std::process::Command;

use cluster::{Bed, Kind, MEMBERS, address};

fn member(folder: &Path, number: usize) -> Vec<String> {
    let peer = |number| format!("http://{}:2380", address(number));
    let all: Vec<_> = (1..=MEMBERS).map(|n| format!("m{n}={}", peer(n))).collect();
    let client = format!("http://{}:2379", address(number));
    let data = folder.join("data").display().to_string();
    [
        ["etcd", "--name", &format!("m{number}"), "--data-dir", &data].as_slice(),
        &["--listen-client-urls", &client, "--advertise-client-urls", &client],
        &["--listen-peer-urls", &peer(number), "--initial-advertise-peer-urls", &peer(number)],
        &["--initial-cluster", &all.join(",")],
    ]
    .concat()
    .into_iter()
    .map(str::to_owned)
    .collect()
}

/// <https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/#message-statusresponse-etcdserveretcdserverpbrpcproto>
fn leads(host: &str) -> Option<bool> {
    let url = format!("http://{host}/v3/maintenance/status");
    let arguments = ["--silent", "--fail", "--max-time", "2", "--data", "{}", &url];
    let answer = Command::new("curl").args(arguments).output().unwrap();
    let status: serde_json::Value = serde_json::from_slice(&answer.stdout).ok()?;
    let leader = status.get("leader")?;
    Some(*leader == status["header"]["member_id"])
}

async fn bed(test: &str) -> Option<Bed> {
    let variable = "DEPLOYKIT_TEST_ETCD";
    Bed::start(Kind { scheme: "etcd", port: 2379, variable, program: member, leads }, test).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_stopped_for_longer_than_the_time_to_live() {
    let Some(bed) = bed("all_stopped_for_longer_than_the_time_to_live").await else { return };
    bed.all_stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_leader_killed() {
    let Some(bed) = bed("the_leader_killed").await else { return };
    bed.leader_killed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_minority_cut_off() {
    let Some(bed) = bed("a_minority_cut_off").await else { return };
    bed.minority_cut_off().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_member_frozen() {
    let Some(bed) = bed("a_member_frozen").await else { return };
    bed.member_frozen().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_changes_and_a_watch_that_is_cut() {
    let Some(bed) = bed("many_changes_and_a_watch_that_is_cut").await else { return };
    bed.many_changes(servers::changes()).await;
}
