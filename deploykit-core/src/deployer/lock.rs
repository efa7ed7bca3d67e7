//! The deploy lock: one deployer at a time for each app.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Deployer;
use crate::error::{Error, ErrorKind, Result};
use crate::model::AppName;
use crate::orchestrator::Orchestrator;
use crate::state::{Fence, Lease};

/// How long a lease runs when it is not renewed.
const TTL: Duration = Duration::from_secs(30);

/// How often it is renewed.
const RENEWAL: Duration = Duration::from_secs(10);

/// How often a lock that somebody else holds is asked for.
const POLL: Duration = Duration::from_millis(250);

/// Why it was lost: `Unavailable` where the backend has not answered for as long as the lease runs.
#[derive(Clone, Debug)]
struct Loss {
    kind: ErrorKind,
    message: String,
}

/// The lock while it is held. Dropped without [`DeployLock::release`], it is free after its lease.
pub(super) struct DeployLock {
    backend: Arc<dyn Orchestrator>,
    lease: Lease,
    lost: watch::Receiver<Option<Loss>>,
    renewal: tokio::task::JoinHandle<()>,
}

impl Drop for DeployLock {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl DeployLock {
    pub(super) async fn acquire(deployer: &Deployer, app: &AppName) -> Result<Self> {
        let until = Instant::now() + deployer.lock_wait;
        let lease = loop {
            match deployer.backend.state().acquire(app, &deployer.holder, TTL).await {
                Ok(lease) => break lease,
                Err(e) if e.kind() == ErrorKind::Conflict && Instant::now() < until => {
                    tokio::time::sleep(POLL.min(until - Instant::now())).await;
                }
                Err(error) => return Err(error),
            }
        };
        let (tell, lost) = watch::channel(None);
        let backend = Arc::clone(&deployer.backend);
        let renewal = tokio::spawn(keep(Arc::clone(&backend), lease.clone(), tell));
        Ok(Self { backend, lease, lost, renewal })
    }

    pub(super) fn fence(&self) -> &Fence {
        &self.lease.fence
    }

    /// Returns when the lock is lost, with the error to give up with.
    pub(super) async fn lost(&self) -> Error {
        let mut lost = self.lost.clone();
        let loss = match lost.wait_for(Option::is_some).await {
            Ok(loss) => loss.clone(),
            Err(_) => None,
        };
        let (kind, why) = match loss {
            Some(Loss { kind, message }) => (kind, message),
            None => (ErrorKind::Conflict, "its renewal has ended".to_owned()),
        };
        let message = format!("the deploy lock was lost: {why}; run it again to converge");
        Error::new(kind, "apply the plan", message).with("app", &self.lease.fence.app)
    }

    /// Gives it back.
    pub(super) async fn release(self) -> Result<()> {
        self.renewal.abort();
        self.backend.state().release(&self.lease).await
    }
}

/// Renews until the lease is taken over, or could not be renewed for as long as it runs.
async fn keep(backend: Arc<dyn Orchestrator>, lease: Lease, tell: watch::Sender<Option<Loss>>) {
    let mut valid_until = Instant::now() + TTL;
    let mut pause = RENEWAL;
    loop {
        tokio::time::sleep(pause).await;
        let asked = Instant::now();
        let renewed =
            tokio::time::timeout_at(valid_until, backend.state().renew(&lease, TTL)).await;
        match renewed {
            Ok(Ok(())) => {
                valid_until = asked + TTL;
                pause = RENEWAL;
            }
            Ok(Err(error)) if error.is_retryable() && Instant::now() < valid_until => {
                pause = Duration::from_secs(1);
            }
            Ok(Err(error)) => {
                let kind = match error.is_retryable() {
                    true => ErrorKind::Unavailable,
                    false => ErrorKind::Conflict,
                };
                tell.send_replace(Some(Loss { kind, message: error.message().to_owned() }));
                return;
            }
            Err(_) => {
                let message = "the backend has not answered for as long as its lease runs";
                let kind = ErrorKind::Unavailable;
                tell.send_replace(Some(Loss { kind, message: message.to_owned() }));
                return;
            }
        }
    }
}
