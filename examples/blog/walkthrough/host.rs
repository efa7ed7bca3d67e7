//! What can be looked up and done on the host itself: the one part of the walkthrough that knows
//! the backend.

use std::fs;
use std::path::{Path, PathBuf};

use deploykit::model::{Address, VolumeName};
use deploykit::{Instance, Observation, Orchestrator};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use super::report::{Failure, expect, until};
use crate::app::APP;

/// Where the blog runs.
pub enum Host {
    /// Processes of this machine, with their state in this folder.
    Local(PathBuf),
    /// Containers of an engine of this machine.
    Docker,
    /// Pods of a cluster.
    #[cfg(feature = "k8s")]
    Cluster(Box<deploykit::k8s::K8s>),
    /// Somewhere that this walkthrough cannot look into.
    Elsewhere,
}

impl Host {
    /// The host behind a backend that was opened by `url`.
    pub async fn of(backend: &dyn Orchestrator, url: &str) -> deploykit::Result<Self> {
        #[cfg(feature = "k8s")]
        if url.starts_with("k8s:") {
            let config = deploykit::k8s::K8sConfig::from_url(url)?;
            return Ok(Self::Cluster(Box::new(deploykit::k8s::K8s::open(config).await?)));
        }
        let _ = url;
        Ok(match backend.name() {
            "local" => Self::Local(backend.identity().into()),
            "docker" => Self::Docker,
            _ => Self::Elsewhere,
        })
    }

    /// Ends an instance without a word: by SIGKILL, or as a pod that is gone at once.
    pub async fn kill(&self, instance: &Instance) -> Result<(), Failure> {
        // `pid 4711`, or `container 0123456789ab, pid 4711`.
        let pid = || instance.host.rsplit_once("pid ")?.1.parse().ok().and_then(Pid::from_raw);
        match self {
            Self::Local(_) | Self::Docker => {
                let pid = pid()
                    .ok_or_else(|| Failure::new("an instance that is a process", &instance.host))?;
                Ok(kill_process(pid, Signal::KILL)?)
            }
            #[cfg(feature = "k8s")]
            Self::Cluster(cluster) => {
                let app = deploykit::model::AppName::new(APP)?;
                Ok(cluster.kill(&app, &instance.id).await?)
            }
            Self::Elsewhere => Err(Failure::new("a host that it can kill on", &instance.host)),
        }
    }

    /// Checks that the processes on the host are those of `instances`: no orphan, no duplicate.
    pub fn check_processes(&self, instances: &[Instance]) -> Result<String, Failure> {
        let Self::Local(folder) = self else { return Ok(String::new()) };
        let running = instances.iter().filter(|instance| instance.exit().is_none());
        let mut told: Vec<String> = running.map(|i| format!("{} is {}", i.id, i.host)).collect();
        let found = processes(folder)?.into_iter();
        let mut found: Vec<String> = found
            .filter_map(|p| p.instance.map(|instance| format!("{instance} is pid {}", p.pid)))
            .collect();
        told.sort();
        found.sort();
        expect(
            told == found,
            format_args!("the processes {}", told.join(", ")),
            format_args!("{}", found.join(", ")),
        )?;
        Ok(format!(", {} processes", found.len()))
    }

    /// What the app has on the host beside its processes and the state folder: addresses that it
    /// listens at, folders that its instances were given.
    pub fn traces(&self, observation: &Observation) -> Result<Traces, Failure> {
        let Self::Local(folder) = self else { return Ok(Traces::default()) };
        let ports = observation.endpoints.values().flat_map(|endpoint| &endpoint.ports);
        let addresses = ports.flat_map(|port| port.public.iter().chain([&port.address])).cloned();
        let folders = processes(folder)?.into_iter().filter_map(|process| process.secrets);
        Ok(Traces { addresses: addresses.collect(), folders: folders.collect() })
    }

    /// Waits until nothing of the app is left on the host but `volume`: no process, no file,
    /// nobody who listens.
    pub async fn wait_until_gone(
        &self,
        traces: &Traces,
        volume: Option<&VolumeName>,
    ) -> Result<(), Failure> {
        let Self::Local(folder) = self else { return Ok(()) };
        let but = volume.map(|name| format!(" but the volume {name}")).unwrap_or_default();
        until(&format!("nothing left on the host{but}"), async || {
            let mut left = files(folder, volume)?;
            left.extend(
                processes(folder)?.iter().map(|process| format!("process {}", process.pid)),
            );
            let folders = traces.folders.iter().filter(|folder| folder.exists());
            left.extend(folders.map(|folder| folder.display().to_string()));
            for address in &traces.addresses {
                if TcpStream::connect((address.host.as_str(), address.port)).await.is_ok() {
                    left.push(format!("a listener at {address}"));
                }
            }
            Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
        })
        .await
    }
}

/// See [`Host::traces`].
#[derive(Debug, Default)]
pub struct Traces {
    addresses: Vec<Address>,
    folders: Vec<PathBuf>,
}

struct Process {
    pid: String,
    /// The instance that it is; nothing for a supervisor.
    instance: Option<String>,
    /// Where it finds its secrets.
    secrets: Option<PathBuf>,
}

/// The processes of a state folder: those that run an executable which is kept there.
fn processes(folder: &Path) -> Result<Vec<Process>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let (Ok(program), Ok(environment)) =
            (fs::read_link(path.join("exe")), fs::read(path.join("environ")))
        else {
            continue; // No process, another user's, or gone meanwhile.
        };
        if !program.starts_with(folder) {
            continue;
        }
        let variable = |name: &str| {
            let mut variables = environment.split(|byte| *byte == 0);
            let value = variables.find_map(|pair| pair.strip_prefix(name.as_bytes()))?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        found.push(Process {
            pid: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            instance: variable("DEPLOYKIT_INSTANCE="),
            secrets: variable("SECRETS_DIR=").map(PathBuf::from),
        });
    }
    Ok(found)
}

/// The files and folders in a state folder, and itself, aside from a volume of the app and what
/// leads there.
fn files(folder: &Path, volume: Option<&VolumeName>) -> Result<Vec<String>, Failure> {
    let kept = volume.map(|name| folder.join("volumes").join(APP).join(name.as_str()));
    let mut left = Vec::new();
    let mut unread = vec![folder.to_owned()];
    while let Some(path) = unread.pop() {
        if Some(&path) == kept.as_ref() {
            continue;
        }
        let leads_to_kept = kept.as_ref().is_some_and(|kept| kept.starts_with(&path));
        if path.symlink_metadata().is_ok() && !leads_to_kept {
            left.push(path.display().to_string());
        }
        for entry in fs::read_dir(&path).into_iter().flatten() {
            unread.push(entry?.path());
        }
    }
    Ok(left)
}
