//! What becomes of registrations and watches when servers break: with members of the tests' own.
//! The faults that take long are in `long_faults.rs`.
#![allow(clippy::unwrap_used)]

mod cluster;
mod servers;

use cluster::{Bed, ETCD, ZOOKEEPER};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_stopped_for_longer_than_the_time_to_live() {
    let Some(bed) = Bed::start(ETCD, "etcd_stopped_for_longer_than_the_time_to_live").await else {
        return;
    };
    bed.all_stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zookeeper_stopped_for_longer_than_the_time_to_live() {
    let Some(bed) =
        Bed::start(ZOOKEEPER, "zookeeper_stopped_for_longer_than_the_time_to_live").await
    else {
        return;
    };
    bed.all_stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_whose_leader_is_killed() {
    let Some(bed) = Bed::start(ETCD, "etcd_whose_leader_is_killed").await else { return };
    bed.leader_killed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zookeeper_whose_leader_is_killed() {
    let Some(bed) = Bed::start(ZOOKEEPER, "zookeeper_whose_leader_is_killed").await else { return };
    bed.leader_killed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_with_many_changes_and_a_watch_that_is_cut() {
    let Some(bed) = Bed::start(ETCD, "etcd_with_many_changes_and_a_watch_that_is_cut").await else {
        return;
    };
    bed.many_changes(1000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zookeeper_with_many_changes_and_a_watch_that_is_cut() {
    let Some(bed) =
        Bed::start(ZOOKEEPER, "zookeeper_with_many_changes_and_a_watch_that_is_cut").await
    else {
        return;
    };
    bed.many_changes(1000).await;
}
