//! What becomes of registrations and watches when ZooKeeper, or the way to it, breaks: with servers
//! of the test's own.
#![cfg(feature = "zookeeper")]
#![allow(clippy::unwrap_used)]

mod cluster;
mod servers;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use cluster::{Bed, Kind, MEMBERS, address};

fn member(folder: &Path, number: usize) -> Vec<String> {
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("myid"), number.to_string()).unwrap();
    let mut config = format!(
        "tickTime=1000\ninitLimit=10\nsyncLimit=5\ndataDir={}\nclientPort=2181\n\
         admin.enableServer=false\n4lw.commands.whitelist=*\n",
        data.display()
    );
    for number in 1..=MEMBERS {
        writeln!(config, "server.{number}={}:2888:3888", address(number)).unwrap();
    }
    let file = folder.join("zoo.cfg");
    fs::write(&file, config).unwrap();
    let jars = "/usr/share/java/zookeeper.jar:/usr/share/java/slf4j-simple.jar";
    let main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
    let file = file.display().to_string();
    ["java", "-Xmx128m", "-cp", jars, main, &file].map(str::to_owned).to_vec()
}

/// <https://zookeeper.apache.org/doc/r3.8.0/zookeeperAdmin.html#sc_4lw>
fn leads(host: &str) -> Option<bool> {
    let patience = Duration::from_secs(2);
    let mut server = TcpStream::connect_timeout(&host.parse().unwrap(), patience).ok()?;
    server.set_read_timeout(Some(patience)).unwrap();
    server.write_all(b"srvr").ok()?;
    let mut answer = String::new();
    server.read_to_string(&mut answer).ok()?;
    match answer.lines().find_map(|line| line.strip_prefix("Mode: "))? {
        "leader" => Some(true),
        "follower" => Some(false),
        _ => None,
    }
}

async fn bed(test: &str) -> Option<Bed> {
    let variable = "DEPLOYKIT_TEST_ZOOKEEPER";
    Bed::start(Kind { scheme: "zk", port: 2181, variable, program: member, leads }, test).await
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
