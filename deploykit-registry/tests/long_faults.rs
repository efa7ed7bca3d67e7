//! The faults that take long; those that do not are in `faults.rs`. `testbed/soak registry` runs them.
#![allow(clippy::unwrap_used)]

mod cluster;
mod servers;

use cluster::{Bed, ETCD, ZOOKEEPER};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_cut_off_in_part() {
    let Some(bed) = Bed::start(ETCD, "etcd_cut_off_in_part").await else { return };
    bed.minority_cut_off().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zookeeper_cut_off_in_part() {
    let Some(bed) = Bed::start(ZOOKEEPER, "zookeeper_cut_off_in_part").await else { return };
    bed.minority_cut_off().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_with_a_frozen_member() {
    let Some(bed) = Bed::start(ETCD, "etcd_with_a_frozen_member").await else { return };
    bed.member_frozen().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zookeeper_with_a_frozen_member() {
    let Some(bed) = Bed::start(ZOOKEEPER, "zookeeper_with_a_frozen_member").await else { return };
    bed.member_frozen().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd_with_ten_thousand_changes() {
    let Some(bed) = Bed::start(ETCD, "etcd_with_ten_thousand_changes").await else { return };
    bed.many_changes(10_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zookeeper_with_ten_thousand_changes() {
    let Some(bed) = Bed::start(ZOOKEEPER, "zookeeper_with_ten_thousand_changes").await else {
        return;
    };
    bed.many_changes(10_000).await;
}
