//! Finding the processes that carry a folder's marker, and ending those that nobody wants.

use std::collections::BTreeSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};

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
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Whatever vanishes meanwhile is not there: no error.
        if entry.metadata().map(|m| m.uid()).ok() != Some(user) {
            continue;
        }
        found.extend(look_at(pid, folder_id));
    }
    Ok(found)
}

fn look_at(pid: u32, folder_id: &str) -> Option<Found> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let instance = instance_of(&environment, folder_id)?;
    let stat = Stat::read(pid).ok()?.filter(|stat| !stat.zombie)?;
    Some(Found { pid, stat, instance })
}

/// Makes this process the parent of whatever its children leave behind.
pub(crate) fn take_orphans() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}

/// The pids of this process's children but for those `known`: where it takes orphans, all that
/// instances have left behind are among them, however they left their group.
fn orphans(known: &BTreeSet<u32>) -> io::Result<Vec<u32>> {
    let mut pids = Vec::new();
    for task in std::fs::read_dir("/proc/self/task")? {
        match std::fs::read_to_string(task?.path().join("children")) {
            Ok(children) => {
                pids.extend(children.split_ascii_whitespace().flat_map(str::parse::<u32>));
            }
            // The thread has ended.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(3) => {}
            Err(e) => return Err(e),
        }
    }
    pids.retain(|pid| !known.contains(pid));
    Ok(pids)
}

/// Like [`marked`], among the orphans of this process alone: for that, it need not look at every
/// process of the machine.
pub(crate) fn marked_orphans(folder_id: &str, known: &BTreeSet<u32>) -> io::Result<Vec<Found>> {
    Ok(orphans(known)?.into_iter().filter_map(|pid| look_at(pid, folder_id)).collect())
}

/// Clears away orphans that have ended. `before` is what the last call returned: somebody else in
/// this process may still wait for a child that has ended just now, not for one from back then.
pub(crate) fn bury(known: &BTreeSet<u32>, before: &BTreeSet<u32>) -> io::Result<BTreeSet<u32>> {
    let mut ended = BTreeSet::new();
    for number in orphans(known)? {
        if !Stat::read(number)?.is_some_and(|stat| stat.zombie) {
            continue;
        }
        let pid = i32::try_from(number).ok().and_then(Pid::from_raw);
        if before.contains(&number) {
            let _ = waitpid(pid, WaitOptions::NOHANG);
        } else {
            ended.insert(number);
        }
    }
    Ok(ended)
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

/// Ends (SIGKILL) every process that `find` finds and `unwanted` says yes to, and looks again until
/// there is none. Returns how many were ended. Blocks.
///
/// # Errors
/// Where `/proc` cannot be read, or processes keep appearing.
pub(crate) fn sweep(
    find: impl Fn() -> io::Result<Vec<Found>>,
    unwanted: impl Fn(&Found) -> bool,
) -> io::Result<usize> {
    // One that takes a while to go is found more than once.
    let mut ended = BTreeSet::new();
    for _ in 0..ROUNDS {
        let found: Vec<Found> = find()?.into_iter().filter(|f| unwanted(f)).collect();
        if found.is_empty() {
            return Ok(ended.len());
        }
        for process in found.iter().filter(|process| end(process)) {
            ended.insert((process.pid, process.stat.started));
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
        Ok(Some(now)) if now.started == found.stat.started => {
            pidfd_send_signal(&pidfd, Signal::KILL).is_ok()
        }
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
