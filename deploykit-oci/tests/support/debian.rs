//! Debian's `docker-registry`, started for one test, and killed and started again by it.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A registry with data of its own.
pub struct Registry {
    pub host: String,
    folder: TempDir,
    process: Child,
}

/// Where the program is. Under CI it has to be there.
pub fn program() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&folders).map(|f| f.join("docker-registry")).find(|p| p.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "docker-registry is missing; testbed/need docker-registry"
        );
        println!("SKIPPED: docker-registry is missing; testbed/need docker-registry installs it");
    }
    found
}

impl Registry {
    /// Starts one; none where there is no program, which is an error under CI. `users` is the
    /// content of an htpasswd file.
    pub fn start(users: Option<&str>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let auth = users.map_or_else(String::new, |users| {
            let file = folder.path().join("htpasswd");
            fs::write(&file, users).unwrap();
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display())
        });
        Self::configured(folder, &auth)
    }

    /// One that speaks https alone, with a certificate of `tests/keys/ca.pem`.
    pub fn encrypted() -> Option<Self> {
        let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/keys");
        let (certificate, key) = (keys.join("registry.pem"), keys.join("registry.key"));
        let tls = format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        );
        Self::configured(tempfile::tempdir().unwrap(), &tls)
    }

    /// `more` comes after what is said of http.
    fn configured(folder: TempDir, more: &str) -> Option<Self> {
        let program = program()?;
        // Free now; whoever takes it meanwhile makes the start fail, which tells.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let data = folder.path().join("data");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\n  \
             delete:\n    enabled: true\nhttp:\n  addr: {address}\n  secret: fixed\n{more}",
            data.display()
        );
        fs::write(folder.path().join("config.yml"), config).unwrap();
        let process = serve(&program, &folder, address);
        Some(Self { host: address.to_string(), folder, process })
    }

    /// Ends it as a crash would, and starts it again with the same data.
    pub fn kill_and_restart(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        self.process = serve(&program().unwrap(), &self.folder, self.host.parse().unwrap());
    }

    /// What its storage has, by the paths' ends.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data/docker/registry/v2")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(program: &PathBuf, folder: &TempDir, address: SocketAddr) -> Child {
    let mut process = Command::new(program)
        .arg("serve")
        .arg(folder.path().join("config.yml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while TcpStream::connect(address).is_err() {
        assert!(process.try_wait().unwrap().is_none(), "docker-registry ended at once");
        assert!(Instant::now() < deadline, "docker-registry does not answer");
        std::thread::sleep(Duration::from_millis(20));
    }
    process
}
