//! Servers of ZooKeeper.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use super::{Kind, MEMBERS, address};

pub(crate) const ZOOKEEPER: Kind =
    Kind { scheme: "zk", port: 2181, variable: "DEPLOYKIT_TEST_ZOOKEEPER", program: member, leads };

fn member(folder: &Path, number: usize) -> Vec<String> {
    let data = folder.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("myid"), number.to_string()).unwrap();
    let mut config = format!(
        "tickTime=500\ninitLimit=20\nsyncLimit=6\ndataDir={}\nclientPort=2181\n\
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
