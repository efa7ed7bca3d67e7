//! Debian's registry, empty, for one measurement.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use deploykit_benches::{ProcessGuard, Result, peer};
use deploykit_oci::{Reference, RegistryClient};
use tempfile::TempDir;

pub(crate) struct Registry {
    pub(crate) host: String,
    _process: ProcessGuard,
    _folder: TempDir,
}

impl Registry {
    pub(crate) fn start() -> Result<Self> {
        let program = peer("docker-registry")?;
        let folder = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let file = folder.path().join("config.yml");
        let data = folder.path().join("data");
        let config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  \
             filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n  secret: bench\n",
            data.display()
        );
        std::fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&file).stdin(Stdio::null()).stdout(Stdio::null());
        let process = ProcessGuard::spawn(command.stderr(Stdio::null()))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(address).is_err() {
            if Instant::now() > deadline {
                return Err("docker-registry does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { host: address.to_string(), _process: process, _folder: folder })
    }

    pub(crate) fn name(&self, repository: &str) -> String {
        format!("{}/{repository}:1", self.host)
    }

    /// The bytes of an image's layers.
    pub(crate) fn size(&self, repository: &str) -> Result<u64> {
        let name = Reference::parse_normalized(&self.name(repository))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let document = runtime.block_on(RegistryClient::default().document(&name))?;
        let manifest = document.manifest()?;
        Ok(manifest.layers.iter().map(|layer| layer.size).sum())
    }
}
