//! Faults at chosen calls.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// What happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The call is not made, and reported as failed.
    ErrorBefore,
    /// The call is made, and reported as failed all the same.
    ErrorAfter,
    /// The deployer dies before the call is made.
    DieBefore,
    /// The deployer dies while the call is made.
    DieDuring,
    /// The deployer dies after the call has been made, and before it knows.
    DieAfter,
    /// What hosts the instances dies, and the call is made after that.
    HostDies,
}

impl Fault {
    /// Every fault of deployers.
    pub const OF_DEPLOYERS: [Self; 5] =
        [Self::ErrorBefore, Self::ErrorAfter, Self::DieBefore, Self::DieDuring, Self::DieAfter];

    /// Whether the deployer dies of it.
    pub fn is_deadly(self) -> bool {
        matches!(self, Self::DieBefore | Self::DieDuring | Self::DieAfter)
    }
}

/// Counts the mutating calls of one connection, and lets a fault happen at one of them. Clones are
/// the same.
#[derive(Clone, Default)]
pub struct Faults(Arc<Shared>);

#[derive(Default)]
struct Shared {
    calls: AtomicU64,
    armed: Mutex<Armed>,
    died: Notify,
}

#[derive(Default)]
struct Armed {
    at: Option<(u64, Fault)>,
    death: Death,
    struck: Option<String>,
}

/// What the death of somebody is.
#[derive(Default)]
pub(crate) enum Death {
    /// The deployer is silent for ever.
    #[default]
    Silence,
    /// The deployer's process gets SIGKILL.
    Signal,
    /// This ends the host.
    OfHost(Box<dyn FnOnce() + Send>),
}

impl std::fmt::Debug for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Faults").field("calls", &self.calls()).finish_non_exhaustive()
    }
}

impl Faults {
    fn armed(&self) -> MutexGuard<'_, Armed> {
        self.0.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets `fault` happen at the call of this number, counted from 1 and from now.
    pub(crate) fn arm(&self, call: u64, fault: Fault, death: Death) {
        self.0.calls.store(0, Ordering::SeqCst);
        *self.armed() = Armed { at: Some((call, fault)), death, struck: None };
    }

    /// How many calls there were since it was armed.
    pub(crate) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The call at which the fault has happened.
    pub(crate) fn struck(&self) -> Option<String> {
        self.armed().struck.clone()
    }

    /// Returns when the deployer has died of its fault, where that does not end the process.
    pub(crate) async fn died(&self) {
        self.0.died.notified().await;
    }

    /// Makes a call, or what the armed fault makes of it. Wrappers of a backend's own traits use
    /// it; [`Bed::faulty`](crate::Bed::faulty) has that of `Runtime`.
    ///
    /// # Errors
    /// Those of the call, and `Unavailable` where a fault says so.
    pub async fn around<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        let number = self.0.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let fault = {
            let mut armed = self.armed();
            let fault = armed.at.filter(|(at, _)| *at == number).map(|(_, fault)| fault);
            if fault.is_some() {
                armed.struck = Some(format!("{name} (call {number})"));
            }
            fault
        };
        match fault {
            None => call.await,
            Some(Fault::ErrorBefore) => Err(failure(name)),
            Some(Fault::ErrorAfter) => {
                call.await?;
                Err(failure(name))
            }
            Some(Fault::HostDies) => {
                let death = std::mem::take(&mut self.armed().death);
                if let Death::OfHost(kill) = death {
                    kill();
                }
                call.await
            }
            Some(Fault::DieBefore) => self.die().await,
            Some(Fault::DieDuring) => {
                // Far enough for the call to be on its way, and seldom for its answer.
                let pause = Duration::from_micros(200 * (1 + number % 7));
                // It is still on its way when the end comes: not dropped before.
                let mut call = std::pin::pin!(call);
                let _ = tokio::time::timeout(pause, &mut call).await;
                self.die().await
            }
            Some(Fault::DieAfter) => {
                let _ = call.await;
                self.die().await
            }
        }
    }

    async fn die<T>(&self) -> T {
        if matches!(self.armed().death, Death::Signal) {
            let signal = rustix::process::Signal::KILL;
            let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
        }
        self.0.died.notify_one();
        std::future::pending().await
    }
}

fn failure(name: &str) -> Error {
    Error::new(ErrorKind::Unavailable, name, "a fault was injected here")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fault_strikes_at_its_call_alone() {
        let faults = Faults::default();
        let made = AtomicU64::new(0);
        let call = || async {
            made.fetch_add(1, Ordering::SeqCst);
            Ok(())
        };
        faults.arm(2, Fault::ErrorAfter, Death::Silence);
        faults.around("one", call()).await.unwrap();
        faults.around("two", call()).await.unwrap_err();
        faults.around("three", call()).await.unwrap();
        assert_eq!((made.load(Ordering::SeqCst), faults.calls()), (3, 3));
        faults.arm(1, Fault::ErrorBefore, Death::Silence);
        faults.around("four", call()).await.unwrap_err();
        assert_eq!(made.load(Ordering::SeqCst), 3);
        assert_eq!(faults.struck().as_deref(), Some("four (call 1)"));
        faults.arm(1, Fault::DieBefore, Death::Silence);
        tokio::select! {
            _ = faults.around("five", call()) => unreachable!("the dead do not answer"),
            () = faults.died() => {}
        }
    }
}
