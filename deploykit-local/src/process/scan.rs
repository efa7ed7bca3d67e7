//! Finding the processes that carry a folder's marker, and ending those that nobody wants.

use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::identity::Stat;
use super::spawn::{FOLDER_MARKER, INSTANCE_MARKER};

/// How often a sweep looks again, so that a process that forks while it is being ended is caught.
const ROUNDS: usize = 50;

/// A living process of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) pid: u32,
    pub(crate) stat: Stat,
    /// The instance that its marker names.
    pub(crate) instance: String,
}

/// Every living process of this user that carries the marker of folder `folder_id`.
///
/// Blocks; about a millisecond per hundred processes of the machine.
pub(crate) fn marked(folder_id: &str) -> io::Result<Vec<Found>> {
    let user = rustix::process::getuid().as_raw();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Whatever vanishes meanwhile is not there: no error.
        if entry.metadata().map(|m| m.uid()).ok() != Some(user) {
            continue;
        }
        let Ok(environment) = std::fs::read(format!("/proc/{pid}/environ")) else { continue };
        let Some(instance) = instance_of(&environment, folder_id) else { continue };
        if let Ok(Some(stat)) = Stat::read(pid)
            && !stat.zombie
        {
            found.push(Found { pid, stat, instance });
        }
    }
    Ok(found)
}

fn instance_of(environment: &[u8], folder_id: &str) -> Option<String> {
    let value = |name: &str| {
        environment
            .split(|byte| *byte == 0)
            .find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    };
    if value(FOLDER_MARKER)? != folder_id.as_bytes() {
        return None;
    }
    String::from_utf8(value(INSTANCE_MARKER)?.to_vec()).ok()
}

/// Ends (SIGKILL) every marked process that `unwanted` says yes to, and looks again until there
/// is none. Returns how many were ended. Blocks.
///
/// # Errors
/// Where `/proc` cannot be read, or processes keep appearing.
pub(crate) fn sweep(folder_id: &str, unwanted: impl Fn(&Found) -> bool) -> io::Result<usize> {
    let mut ended = 0;
    for _ in 0..ROUNDS {
        let found: Vec<Found> = marked(folder_id)?.into_iter().filter(|f| unwanted(f)).collect();
        if found.is_empty() {
            return Ok(ended);
        }
        for process in &found {
            ended += usize::from(end(process));
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Err(io::Error::other("processes of an ended instance keep appearing"))
}

/// Sends SIGKILL through a pidfd that is known to be of the very process that was found.
fn end(found: &Found) -> bool {
    let Some(pid) = i32::try_from(found.pid).ok().and_then(Pid::from_raw) else { return false };
    let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else { return false };
    match Stat::read(found.pid) {
        Ok(Some(now)) if now.started == found.stat.started => pidfd_send_signal(&pidfd, Signal::KILL).is_ok(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_markers_are_needed() {
        let environment = b"A=1\0DEPLOYKIT_FOLDER=f1\0DEPLOYKIT_INSTANCE=web-1\0";
        assert_eq!(instance_of(environment, "f1").as_deref(), Some("web-1"));
        assert_eq!(instance_of(environment, "f2"), None);
        assert_eq!(instance_of(b"XDEPLOYKIT_FOLDER=f1\0DEPLOYKIT_INSTANCE=a\0", "f1"), None);
        assert_eq!(instance_of(b"DEPLOYKIT_FOLDER=f1\0", "f1"), None);
    }
}
