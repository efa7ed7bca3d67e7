//! One instance as the supervisor sees it.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use deploykit_core::model::{Address, AppName, Signal};
use deploykit_core::{Instance, InstanceSpec, InstanceState, OutputStream, Reason};
use tokio_util::sync::CancellationToken;

use crate::addresses::LOOPBACK;
use crate::database::{InstanceRow, Phase};
use crate::folder::Folder;
use crate::logs;

/// How many of its last lines come with a diagnosis.
const EVIDENCE: usize = 20;

/// An instance that is known, whether it runs or has ended.
#[derive(Debug)]
pub(crate) struct Hosted {
    pub(crate) app: AppName,
    pub(crate) spec: InstanceSpec,
    live: Mutex<Live>,
    /// Cancelled when it shall end.
    pub(crate) stop: CancellationToken,
    /// Cancelled when nothing of it runs, for good.
    pub(crate) ended: CancellationToken,
}

/// What changes while it is hosted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Live {
    pub(crate) phase: Phase,
    pub(crate) state: InstanceState,
    pub(crate) ready: bool,
    pub(crate) trouble: Option<Reason>,
}

impl Hosted {
    pub(crate) fn new(row: InstanceRow) -> Self {
        let state = match row.phase.exit {
            Some(exit) if row.phase.over => InstanceState::Exited(exit),
            _ => InstanceState::Starting,
        };
        let ended = CancellationToken::new();
        if row.phase.over {
            ended.cancel();
        }
        let stop = CancellationToken::new();
        if row.phase.stopped {
            stop.cancel();
        }
        let live = Mutex::new(Live { phase: row.phase, state, ready: false, trouble: None });
        Self { app: row.app, spec: row.spec, live, stop, ended }
    }

    /// What it is doing; not to be held across an await.
    pub(crate) fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of what is stored of it.
    pub(crate) fn phase(&self) -> Phase {
        self.live().phase.clone()
    }

    /// Where it listens for the port that its service declares as `declared`.
    pub(crate) fn address(&self, declared: u16) -> Option<SocketAddr> {
        let index = self.spec.template.ports.iter().position(|port| port.port == declared)?;
        Some(SocketAddr::new(LOOPBACK, *self.live().phase.ports.get(index)?))
    }

    /// Its last lines of output: those of standard output, then those of standard error.
    pub(crate) fn evidence(&self, folder: &Folder) -> Vec<String> {
        let tail = |stream| logs::tail(&folder.log(&self.spec.id, stream), EVIDENCE).unwrap_or_default();
        let mut lines = tail(OutputStream::Stdout);
        lines.extend(tail(OutputStream::Stderr));
        lines
    }

    /// What is reported of it.
    pub(crate) fn observe(&self) -> Instance {
        let live = self.live();
        Instance {
            id: self.spec.id.clone(),
            service: self.spec.service.clone(),
            revision: self.spec.revision,
            hash: self.spec.hash.clone(),
            slot: self.spec.slot,
            state: live.state,
            ready: live.ready,
            restarts: live.phase.restarts,
            addresses: live.phase.ports.iter().map(|port| Address { host: LOOPBACK.to_string(), port: *port }).collect(),
            started_at: live.phase.started_at,
            host: live.phase.process.as_ref().map_or_else(String::new, |process| format!("pid {}", process.pid)),
            trouble: live.trouble.clone(),
        }
    }
}

/// The number behind a signal's name.
pub(crate) fn signal(signal: Signal) -> rustix::process::Signal {
    match signal {
        Signal::Int => rustix::process::Signal::INT,
        Signal::Quit => rustix::process::Signal::QUIT,
        Signal::Hup => rustix::process::Signal::HUP,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
        Signal::Kill => rustix::process::Signal::KILL,
        // The ordinary one stands in for any that a later model adds.
        _ => rustix::process::Signal::TERM,
    }
}
