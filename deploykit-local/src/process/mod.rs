//! Processes: started, taken over from an earlier supervisor, signalled, waited for, ended.

mod identity;
pub(crate) mod scan;
mod spawn;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::OnceLock;
use std::time::Duration;

use deploykit_core::Exit;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open,
    pidfd_send_signal, waitid,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub(crate) use identity::{Identity, Stat, boot_id};
pub(crate) use spawn::Launch;

/// A process that this supervisor started or adopted, held by its pidfd.
///
/// Dropping it leaves the process running.
#[derive(Debug)]
pub(crate) struct Process {
    identity: Identity,
    pidfd: AsyncFd<OwnedFd>,
    child: bool,
    exit: OnceLock<Exit>,
}

impl Process {
    /// Starts `launch`. Must be called within a tokio runtime with I/O; blocks for about a
    /// millisecond.
    pub(crate) fn spawn(launch: &Launch) -> io::Result<Self> {
        let pid = launch.start()?;
        // A child keeps its pid until it is waited for, so neither call can meet another process.
        let stat = Stat::read(pid)?
            .ok_or_else(|| io::Error::other("a process that was just started is gone"))?;
        Self::open(Identity { boot: boot_id()?, pid, started: stat.started }, true)
    }

    /// Takes over a process that an earlier supervisor started; `None` where it has ended.
    pub(crate) fn adopt(identity: Identity) -> io::Result<Option<Self>> {
        if identity.boot != boot_id()? {
            return Ok(None);
        }
        let started = identity.started;
        let process = match Self::open(identity, false) {
            Ok(process) => process,
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                return Ok(None);
            }
            Err(e) => return Err(e),
        };
        // Only now that the pidfd is held does the start time say whose it is.
        let same = Stat::read(process.identity.pid)?
            .is_some_and(|stat| stat.started == started && !stat.zombie);
        Ok(same.then_some(process))
    }

    fn open(identity: Identity, child: bool) -> io::Result<Self> {
        let pidfd = pidfd_open(raw_pid(identity.pid)?, PidfdFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an owned pidfd that is never replaced keeps its rules"
        )]
        let pidfd = AsyncFd::with_interest(pidfd, Interest::READABLE)?;
        Ok(Self { identity, pidfd, child, exit: OnceLock::new() })
    }

    /// Whether this supervisor started it itself.
    pub(crate) fn is_child(&self) -> bool {
        self.child
    }

    /// Which process it is.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Waits until it has ended, and says how. Whatever is left of its process group is then
    /// ended too. May be called again; cancel-safe.
    pub(crate) async fn exited(&self) -> Exit {
        if let Some(exit) = self.exit.get() {
            return *exit;
        }
        // An error can only mean that the runtime is shutting down.
        if self.pidfd.readable().await.is_err() {
            return Exit::Lost;
        }
        *self.exit.get_or_init(|| self.reap())
    }

    /// The unreaped leader keeps the group's number from being given away: the group is ended
    /// first. Nobody holds the number of an adopted one; its group is left to the sweep.
    fn reap(&self) -> Exit {
        if !self.child {
            return Exit::Lost;
        }
        if let Ok(pid) = raw_pid(self.identity.pid) {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        match waitid(
            WaitId::PidFd(self.pidfd.as_fd()),
            WaitIdOptions::EXITED | WaitIdOptions::NOHANG,
        ) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (None, Some(signal)) => Exit::Signal(signal),
                (None, None) => Exit::Lost,
            },
            Ok(None) | Err(_) => Exit::Lost,
        }
    }

    /// Sends a signal to the process itself, not to its group. One that has ended takes it
    /// without an error.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }

    /// Sends `signal`, waits for the grace period, then ends it with SIGKILL. Dropped before it
    /// resolves, the process may be left running with the signal sent.
    pub(crate) async fn stop(&self, signal: Signal, grace: Duration) -> io::Result<Exit> {
        self.signal(signal)?;
        if let Ok(exit) = tokio::time::timeout(grace, self.exited()).await {
            return Ok(exit);
        }
        self.signal(Signal::KILL)?;
        Ok(self.exited().await)
    }
}

fn raw_pid(pid: u32) -> io::Result<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no process id"))
    })
}

#[cfg(test)]
mod tests;
