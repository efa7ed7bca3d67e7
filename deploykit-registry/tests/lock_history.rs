//! Holders of a lock that are frozen, of a cluster whose members are cut off: what they write with
//! the lock's token is never accepted from two at once, and would be without it.
#![allow(clippy::unwrap_used)]

mod cluster;
mod servers;

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster::{Bed, ETCD, MEMBERS, ZOOKEEPER};

const HOLDERS: usize = 5;

const TTL: Duration = Duration::from_secs(2);

/// In the environment of a holder: the coordinator's URL, what the lock protects, and its name.
const HOLDER: [&str; 3] =
    ["DEPLOYKIT_TEST_LOCKS", "DEPLOYKIT_TEST_PROTECTED", "DEPLOYKIT_TEST_HOLDER"];

/// A write: whose, with which token, and whether it was accepted.
#[derive(Clone, Debug)]
struct Written {
    holder: String,
    token: u64,
    accepted: bool,
}

/// What the lock protects: it takes lines of `TOKEN HOLDER`, and refuses one lower than it has seen.
fn protected() -> (String, Arc<Mutex<Vec<Written>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let history = Arc::new(Mutex::new(Vec::<Written>::new()));
    let all = history.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, all) = (stream.unwrap(), all.clone());
            std::thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let (token, holder) = line.split_once(' ').unwrap();
                    let (token, holder) = (token.parse().unwrap(), holder.to_owned());
                    let mut all = all.lock().unwrap();
                    let seen = all.iter().rev().find(|written| written.accepted);
                    let accepted = seen.is_none_or(|seen| seen.token <= token);
                    all.push(Written { holder, token, accepted });
                }
            });
        }
    });
    (address, history)
}

/// How often a holder wrote after one that came later: what a lock is to prevent.
fn overlaps<'a>(history: impl Iterator<Item = &'a Written>) -> usize {
    let mut newest: Option<&Written> = None;
    let mut overlaps = 0;
    for written in history {
        let late = newest.is_some_and(|newest| {
            let same = written.token == newest.token;
            written.token < newest.token || same && written.holder != newest.holder
        });
        if late {
            overlaps += 1;
        } else {
            newest = Some(written);
        }
    }
    overlaps
}

/// The process of a holder: it takes the lock, writes for a while, and gives it back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holds() {
    let [Ok(url), Ok(protected), Ok(name)] = HOLDER.map(std::env::var) else {
        return;
    };
    loop {
        let Ok(coordinator) = deploykit_registry::coordinator(&url).await else { continue };
        while let Ok(lock) = coordinator.lock("protected", &name, TTL).await {
            let mut stream = TcpStream::connect(&protected).unwrap();
            let (token, holder) = (lock.token(), name.clone());
            let over = Arc::new(AtomicBool::new(false));
            let until = over.clone();
            // A thread of its own, that sees that the lock is lost only between two writes.
            let writing = std::thread::spawn(move || {
                while !until.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(10));
                    writeln!(stream, "{token} {holder}").unwrap();
                }
            });
            let turn = tokio::time::sleep(Duration::from_secs(1));
            tokio::select! {
                () = lock.lost() => {}
                () = turn => {}
            }
            over.store(true, Ordering::Relaxed);
            writing.join().unwrap();
            let _ = lock.release().await;
        }
    }
}

struct Holder(Child);

impl Holder {
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

/// For 20 s, or as long as `DEPLOYKIT_LOCKS_SECONDS` says, and until there was an overlap.
fn check(bed: &Bed) {
    let (address, history) = protected();
    let holders: Vec<_> = (0..HOLDERS)
        .map(|number| {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--exact", "holds", "--nocapture"]);
            let values = [bed.url.clone(), address.clone(), format!("holder-{number}")];
            Holder(command.envs(HOLDER.into_iter().zip(values)).spawn().unwrap())
        })
        .collect();
    let seconds = std::env::var("DEPLOYKIT_LOCKS_SECONDS").map_or(20, |s| s.parse().unwrap());
    let begun = Instant::now();
    let all = || history.lock().unwrap().clone();
    let mut round = 0;
    while begun.elapsed() < Duration::from_secs(seconds) || overlaps(all().iter()) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(seconds + 300), "nobody wrote too late");
        round += 1;
        std::thread::sleep(Duration::from_millis(700));
        // Who writes, so that it writes on when it is thawed; and, for company, the next one.
        let writer = all().last().map(|written| written.holder.clone());
        let writes = |number: &usize| writer == Some(format!("holder-{number}"));
        let writer = (0..HOLDERS).find(writes).unwrap_or_default();
        let frozen = [&holders[writer], &holders[(writer + 1) % HOLDERS]];
        frozen.iter().for_each(|holder| holder.signal("-STOP"));
        let member = round % MEMBERS + 1;
        let cut = round % 2 == 0;
        if cut {
            bed.cluster.cut(member);
        }
        std::thread::sleep(TTL * 3);
        frozen.iter().for_each(|holder| holder.signal("-CONT"));
        if cut {
            bed.cluster.heal(member);
        }
    }
    drop(holders);
    let all = all();
    let accepted = overlaps(all.iter().filter(|written| written.accepted));
    let tokens = all.iter().map(|written| written.token).collect::<std::collections::BTreeSet<_>>();
    println!(
        "{} writes of {} turns in {:.0?}: overlaps with the token {accepted}, without {}",
        all.len(),
        tokens.len(),
        begun.elapsed(),
        overlaps(all.iter())
    );
    assert_eq!(accepted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn etcd() {
    let Some(bed) = Bed::start(ETCD, "etcd").await else { return };
    check(&bed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn zookeeper() {
    let Some(bed) = Bed::start(ZOOKEEPER, "zookeeper").await else { return };
    check(&bed);
}
