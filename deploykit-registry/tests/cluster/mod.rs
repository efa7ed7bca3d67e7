//! Servers of a test's own, each in a network namespace of its own on one bridge: they can be
//! killed, frozen and cut off, and nobody else notices.
#![allow(clippy::unwrap_used, clippy::panic, dead_code)]

mod etcd;
mod faults;
mod zookeeper;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub(crate) use self::etcd::ETCD;
pub(crate) use self::faults::{Bed, Kind};
pub(crate) use self::zookeeper::ZOOKEEPER;
use crate::servers;

const ALONE: &str = "DEPLOYKIT_TEST_ALONE";

pub(crate) const MEMBERS: usize = 3;

/// Whether this process is in a network namespace of its own; where it is not, the test is run
/// again in one, by a process of its own. `variable` says that the servers are installed.
pub(crate) fn alone(test: &str, variable: &str) -> bool {
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    if servers::hosts(variable, test).is_some() {
        let mut command = Command::new("unshare");
        command.args(["--net", "--"]).arg(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--nocapture"]).env(ALONE, "yes");
        assert!(command.status().unwrap().success(), "{test}, in a network of its own");
    }
    false
}

fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {said}");
}

/// What a member runs: the command for the folder of its own and its number, from 1.
pub(crate) type Program = fn(&Path, usize) -> Vec<String>;

pub(crate) fn address(number: usize) -> String {
    format!("10.99.0.{number}")
}

pub(crate) struct Cluster {
    folder: TempDir,
    program: Program,
    members: [Option<Child>; MEMBERS],
}

impl Cluster {
    /// Starts all members; whether they answer is asked by the caller.
    pub(crate) fn start(program: Program) -> Self {
        run("ip link set lo up");
        run("ip link add br0 type bridge");
        run("ip address add 10.99.0.254/24 dev br0");
        run("ip link set br0 up");
        let folder = tempfile::tempdir().unwrap();
        let mut cluster = Self { folder, program, members: [const { None }; MEMBERS] };
        (1..=MEMBERS).for_each(|number| cluster.begin(number));
        cluster
    }

    /// Starts a member that does not run.
    pub(crate) fn begin(&mut self, number: usize) {
        const SCRIPT: &str = "ip link set lo up; \
            until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done; \
            ip address add \"$0/24\" dev eth0; ip link set eth0 up; exec \"$@\"";
        let folder = self.folder.path().join(number.to_string());
        fs::create_dir_all(&folder).unwrap();
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--net", "--", "sh", "-c", SCRIPT, &address(number)]);
        command.args((self.program)(&folder, number)).stdin(Stdio::null());
        let member = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let network = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
        let (id, ours) = (member.id().to_string(), network("self"));
        self.members[number - 1] = Some(member);
        until("a member is in its network", || network(&id) != ours);
        // The interface of one that was killed goes by and by.
        let _ = Command::new("ip").args(["link", "delete", &format!("m{number}")]).output();
        run(&format!(
            "ip link add m{number} type veth peer name eth0 address 02:00:00:00:00:0{number} netns {id}"
        ));
        run(&format!("ip link set m{number} master br0 up"));
    }

    pub(crate) fn kill(&mut self, number: usize) {
        if let Some(mut member) = self.members[number - 1].take() {
            let _ = member.kill();
            let _ = member.wait();
        }
    }

    fn signal(&self, number: usize, signal: &str) {
        let id = self.members[number - 1].as_ref().unwrap().id();
        run(&format!("kill -{signal} {id}"));
    }

    pub(crate) fn freeze(&self, number: usize) {
        self.signal(number, "STOP");
    }

    pub(crate) fn thaw(&self, number: usize) {
        self.signal(number, "CONT");
    }

    /// Nothing gets to it or from it.
    pub(crate) fn cut(&self, number: usize) {
        run(&format!("ip link set m{number} down"));
    }

    pub(crate) fn heal(&self, number: usize) {
        run(&format!("ip link set m{number} up"));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for number in 1..=MEMBERS {
                let file = self.folder.path().join(number.to_string()).join("log");
                let log = fs::read_to_string(file).unwrap_or_default();
                let lines: Vec<_> = log.lines().rev().take(15).collect();
                eprintln!("the log of member {number}, the newest first: {lines:#?}");
            }
        }
        (1..=MEMBERS).for_each(|number| self.kill(number));
    }
}

pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < patience, "never: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
