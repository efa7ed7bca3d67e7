//! A testbed of the bench's own: three members of etcd, three servers of ZooKeeper.

use std::path::Path;
use std::process::{Command, Stdio};

use deploykit_benches::Result;
use tempfile::TempDir;

pub(crate) struct Servers {
    folder: TempDir,
    etcd: String,
    zookeeper: String,
}

impl Servers {
    pub(crate) fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("testbed.").tempdir_in("/var/tmp")?;
        let mut servers = Self { folder, etcd: String::new(), zookeeper: String::new() };
        let mut up = servers.testbed("up");
        let up = up.args(["etcd", "zookeeper"]).stderr(Stdio::inherit()).output()?;
        if !up.status.success() {
            return Err(format!("testbed/up etcd zookeeper: {}", up.status).into());
        }
        let exports = String::from_utf8(up.stdout)?;
        let hosts = |variable: &str| {
            let start = format!("export {variable}=");
            let hosts = exports.lines().find_map(|line| line.strip_prefix(&start));
            hosts.map(str::to_owned).ok_or_else(|| format!("testbed/up says no {variable}"))
        };
        servers.etcd = hosts("DEPLOYKIT_TEST_ETCD")?;
        let zookeeper = hosts("DEPLOYKIT_TEST_ZOOKEEPER")?;
        servers.zookeeper = zookeeper.split(',').next().unwrap_or_default().to_owned();
        Ok(servers)
    }

    fn testbed(&self, script: &str) -> Command {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed").join(script);
        let mut command = Command::new(script);
        command.env("DEPLOYKIT_TESTBED", self.folder.path());
        command
    }

    pub(crate) fn etcd_url(&self, path: &str) -> String {
        format!("etcd://{}/{path}", self.etcd)
    }

    /// One server: on which of three a client is decides how long it waits.
    pub(crate) fn zookeeper_url(&self, path: &str) -> String {
        format!("zk://{}/{path}", self.zookeeper)
    }

    /// A client without anything of ours.
    pub(crate) async fn etcd(&self) -> Result<etcd_client::Client> {
        let hosts: Vec<_> = self.etcd.split(',').collect();
        Ok(etcd_client::Client::connect(hosts, None).await?)
    }

    /// A client without anything of ours.
    pub(crate) async fn zookeeper(&self) -> Result<zookeeper_client::Client> {
        Ok(zookeeper_client::Client::connect(&self.zookeeper).await?)
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        let _ = self.testbed("down").status();
    }
}
