//! What can be looked up and done on the host itself: the one part of the walkthrough that knows
//! the backend.

use std::fs;
use std::path::{Path, PathBuf};

use deploykit::Instance;
use deploykit::model::{Address, VolumeName};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpStream;

use super::report::{Failure, expect, until};
use crate::app::APP;

/// Where the blog runs.
pub enum Host {
    /// Processes of this machine, with their state in this folder.
    Local(PathBuf),
    /// Somewhere that this walkthrough cannot look into.
    Elsewhere,
}

impl Host {
    /// The host behind a backend's name and identity.
    pub fn of(backend: &dyn deploykit::Orchestrator) -> Self {
        match backend.name() {
            "local" => Self::Local(backend.identity().into()),
            _ => Self::Elsewhere,
        }
    }

    /// Ends an instance by SIGKILL.
    pub fn kill(&self, instance: &Instance) -> Result<(), Failure> {
        let pid = || instance.host.strip_prefix("pid ")?.parse().ok().and_then(Pid::from_raw);
        match self {
            Self::Local(_) => {
                let pid = pid()
                    .ok_or_else(|| Failure::new("an instance that is a process", &instance.host))?;
                Ok(kill_process(pid, Signal::KILL)?)
            }
            Self::Elsewhere => Err(Failure::new("a host that it can kill on", &instance.host)),
        }
    }

    /// Checks that the processes on the host are those of `instances`: no orphan, no duplicate.
    pub fn check_processes(&self, instances: &[Instance]) -> Result<String, Failure> {
        let Self::Local(folder) = self else { return Ok(String::new()) };
        let mut told: Vec<String> = instances
            .iter()
            .filter(|instance| instance.exit().is_none())
            .map(|instance| instance.host.trim_start_matches("pid ").to_owned())
            .collect();
        let mut found: Vec<String> =
            processes(folder)?.into_iter().filter(|p| p.serves).map(|p| p.pid).collect();
        told.sort();
        found.sort();
        expect(
            told == found,
            format_args!("the processes {}", told.join(" ")),
            format_args!("{}", found.join(" ")),
        )?;
        Ok(format!(", {} processes", found.len()))
    }

    /// Waits until nothing of the app is left on the host but `volume`, or not even that: no
    /// process, nobody who listens at `addresses`, no file.
    pub async fn wait_until_gone(
        &self,
        addresses: &[Address],
        volume: Option<&VolumeName>,
    ) -> Result<(), Failure> {
        let Self::Local(folder) = self else { return Ok(()) };
        let but = volume.map(|name| format!(" but the volume {name}")).unwrap_or_default();
        until(&format!("nothing left on the host{but}"), async || {
            let mut left = leftovers(folder, volume)?;
            for address in addresses {
                if TcpStream::connect((address.host.as_str(), address.port)).await.is_ok() {
                    left.push(format!("a listener at {address}"));
                }
            }
            Ok(if left.is_empty() { Ok(()) } else { Err(left.join(", ")) })
        })
        .await
    }
}

struct Process {
    pid: String,
    /// An instance, and not the supervisor.
    serves: bool,
}

/// The processes that belong to a state folder: they run an executable that is kept there, or
/// this program on its behalf.
fn processes(folder: &Path) -> Result<Vec<Process>, Failure> {
    let me = std::env::current_exe()?;
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (Ok(program), Ok(command)) =
            (fs::read_link(path.join("exe")), fs::read(path.join("cmdline")))
        else {
            continue; // No process, another user's, or gone meanwhile.
        };
        let serves = program.starts_with(folder);
        let named = String::from_utf8_lossy(&command).contains(&*folder.to_string_lossy());
        if serves || (program == me && named && pid != std::process::id().to_string()) {
            found.push(Process { pid, serves });
        }
    }
    Ok(found)
}

/// The processes and files that are left in a state folder, aside from a volume of the app.
fn leftovers(folder: &Path, volume: Option<&VolumeName>) -> Result<Vec<String>, Failure> {
    let mut left: Vec<String> =
        processes(folder)?.iter().map(|process| format!("process {}", process.pid)).collect();
    let kept = volume.map(|name| folder.join("volumes").join(APP).join(name.as_str()));
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
