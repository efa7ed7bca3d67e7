//! From a template to a running process: files, environment, ports.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

use deploykit_core::model::{Address, Contract, Listen, VolumeScope};
use deploykit_core::{Error, OutputStream, Reason, Result};

use super::Supervisor;
use super::hosted::Hosted;
use crate::addresses::{LOOPBACK, is_free};
use crate::error;
use crate::folder::{make_private, remove_all};
use crate::process::{Launch, Process};
use crate::protocol::Surroundings;

impl Supervisor {
    /// Starts the process of an instance. Blocks for some milliseconds; must be called within the
    /// runtime.
    pub(super) fn launch(&self, hosted: &Hosted) -> Result<Process, Reason> {
        let template = &hosted.spec.template;
        let executable = self.executables.path(&template.image.digest);
        if !executable.is_file() {
            return Err(Reason::ImageNotFound { image: template.image.to_string() });
        }
        self.give_ports(hosted)?;
        self.give_secrets(hosted)?;
        let failed = |e: Error| Reason::StartFailed { message: e.to_string() };
        self.give_files(hosted).map_err(failed)?;
        let Surroundings { env, workdir } = self.surroundings(hosted).map_err(failed)?;
        let id = &hosted.spec.id;
        let source = Path::new(&template.image.source);
        let launch = Launch {
            executable,
            name: source
                .file_name()
                .map_or_else(|| id.clone(), |name| name.to_string_lossy().into_owned()),
            args: template.command.iter().chain(&template.args).cloned().collect(),
            env,
            folder: workdir.clone(),
            out: self.folder.log(id, OutputStream::Stdout),
            err: self.folder.log(id, OutputStream::Stderr),
            instance: id.clone(),
            folder_id: self.folder_id.clone(),
        };
        Process::spawn(&launch).map_err(|e| {
            let message = match e.kind() {
                io::ErrorKind::NotFound if !workdir.is_dir() => {
                    format!("its working folder {} does not exist", workdir.display())
                }
                io::ErrorKind::NotFound => {
                    format!(
                        "{} cannot be executed: its interpreter or loader is missing",
                        template.image
                    )
                }
                _ => format!("{} cannot be executed: {e}", template.image),
            };
            Reason::StartFailed { message }
        })
    }

    /// What a command of the instance runs with: the app's variables and the environment contract.
    pub(super) fn surroundings(&self, hosted: &Hosted) -> Result<Surroundings> {
        let template = &hosted.spec.template;
        let id = &hosted.spec.id;
        let ports = hosted.phase().ports;
        let named =
            template.ports.iter().zip(ports).map(|(port, number)| (port.name.clone(), number));
        let mut peers = Vec::new();
        for (peer, declared) in &template.peers {
            peers.push((peer, self.peer_address(hosted, peer, *declared)?));
        }
        let files = self.folder.instance(id);
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let contract = Contract {
            instance: id,
            listen: Listen {
                host: LOOPBACK.to_string(),
                advertise: LOOPBACK.to_string(),
                ports: named.collect(),
            },
            peers,
            secrets_dir: &text(self.delivery.of(id)),
            configs_dir: &text(files.join("configs")),
            volumes_dir: &text(files.join("volumes")),
        };
        let mut env: BTreeMap<String, String> = template.env.clone();
        env.extend(contract.variables());
        Ok(Surroundings { env, workdir: template.workdir.clone().unwrap_or(files) })
    }

    fn peer_address(
        &self,
        hosted: &Hosted,
        peer: &deploykit_core::model::ServiceName,
        declared: u16,
    ) -> Result<Address> {
        self.state().address_of(&hosted.app, peer, declared).ok_or_else(|| {
            let message = format!("the service {peer} has no address for its port {declared} yet");
            Error::new(deploykit_core::ErrorKind::Failed, "start an instance", message)
                .on(error::BACKEND)
        })
    }

    /// Keeps the ports that it has while nobody else listens on them.
    fn give_ports(&self, hosted: &Hosted) -> Result<(), Reason> {
        let ports = hosted.phase().ports;
        if ports.iter().all(|port| is_free(*port)) {
            return Ok(());
        }
        let taken = ports.iter().copied().find(|port| !is_free(*port)).unwrap_or_default();
        let mut state = self.state();
        let new = state
            .ports
            .take(ports.len())
            .map_err(|e| Reason::PortTaken { port: taken, message: e.to_string() })?;
        state.ports.release(&ports);
        drop(state);
        hosted.live().phase.ports = new;
        Ok(())
    }

    fn give_secrets(&self, hosted: &Hosted) -> Result<(), Reason> {
        let failed = |e: Error| Reason::StartFailed { message: e.to_string() };
        let mut values = Vec::new();
        for (name, version) in &hosted.spec.template.secrets {
            let value = self.secret(&hosted.app, name, *version).map_err(|e| match e.kind() {
                deploykit_core::ErrorKind::NotFound => {
                    Reason::SecretMissing { secret: format!("{name}@{version}") }
                }
                _ => failed(e),
            })?;
            values.push((name.clone(), value));
        }
        self.delivery.write(&hosted.spec.id, &values).map_err(failed)
    }

    fn give_files(&self, hosted: &Hosted) -> Result<()> {
        let spec = &hosted.spec;
        let files = self.folder.instance(&spec.id);
        let (configs, volumes) = (files.join("configs"), files.join("volumes"));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |e| error::io("give an instance its files", &path, e)
        };
        make_private(&files).map_err(failed(&files))?;
        let filled = [
            (&configs, !spec.template.configs.is_empty()),
            (&volumes, !spec.template.volumes.is_empty()),
        ];
        for (folder, wanted) in filled {
            remove_all(folder).map_err(failed(folder))?;
            if wanted {
                make_private(folder).map_err(failed(folder))?;
            }
        }
        for (name, content) in &spec.template.configs {
            let path = configs.join(name.as_str());
            let file = fs::File::options().write(true).create_new(true).mode(0o400).open(&path);
            file.and_then(|mut file| file.write_all(content.as_bytes())).map_err(failed(&path))?;
        }
        for (name, scope) in &spec.template.volumes {
            let slot = (*scope == VolumeScope::PerReplica).then_some(spec.slot);
            let data = self.folder.volume(&hosted.app, name, slot);
            make_private(&data).map_err(failed(&data))?;
            symlink(&data, volumes.join(name.as_str())).map_err(failed(&volumes))?;
        }
        make_private(&self.folder.path().join("logs")).map_err(failed(self.folder.path()))
    }

    /// Removes everything that an instance had but its data.
    pub(super) fn remove_files(&self, id: &str) -> Result<()> {
        let failed = |path: &Path, e| error::io("remove the files of an instance", path, e);
        let files = self.folder.instance(id);
        remove_all(&files).map_err(|e| failed(&files, e))?;
        self.delivery.remove(id).map_err(|e| failed(&self.delivery.of(id), e))?;
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let log = self.folder.log(id, stream);
            if let Err(e) = fs::remove_file(&log)
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(failed(&log, e));
            }
        }
        Ok(())
    }
}
