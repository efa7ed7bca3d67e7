//! The agent itself: what answers a [`Client`](crate::control::Client).

mod document;
mod files;
mod follow;
mod keeper;
mod sealed;
mod serving;
mod socket;

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deploykit_core::{Fence, Result};
use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

use crate::control::{Listener, Request};
use crate::error;
use crate::proxy::ServiceProxy;
use crate::wire::{Frame, encode_answer};
use keeper::Keeper;
use serving::Serving;

pub use socket::Server;

/// How long requests in flight may take to end when an endpoint is removed.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// How long after its start an agent waits to hear from what was ready before.
const SETTLING: Duration = Duration::from_secs(1);
/// How often an address is tried again that was ours before the agent was started anew.
const BIND_AGAIN: Duration = Duration::from_millis(250);

/// An agent: what it keeps and serves, whoever asks.
#[derive(Debug)]
pub struct Agent {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
    /// When it tells of everything, whatever has not answered yet.
    settled: Instant,
}

#[derive(Debug)]
struct State {
    keeper: Keeper,
    serving: Serving,
}

impl State {
    /// Refuses a right that is not the newest: where locks are given out here, of those; else of
    /// those that have come.
    fn check(&self, fence: &Fence) -> Result<()> {
        if self.keeper.has(&fence.app) {
            self.keeper.check(fence)?;
        }
        self.serving.check(fence)
    }
}

impl Agent {
    /// An agent on the state folder `folder`, which it makes where it is missing. What was served
    /// from it before is served again. Proxies and probers run on the runtime `data`, everything
    /// else where this is called. Its tasks end when it is dropped.
    ///
    /// # Errors
    /// `Corrupt` where the file of what was served is damaged or of a newer version; others of the
    /// file system. A file of an app that cannot be read is an error of the calls that need it.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn open(folder: &Path, data: Handle) -> Result<Arc<Self>> {
        fs::create_dir_all(folder).map_err(|e| error::io("open the agent's state", folder, e))?;
        let (news, told) = mpsc::unbounded_channel();
        let state = State {
            keeper: Keeper::open(&folder.join("apps"))?,
            serving: Serving::open(&folder.join("serving.json"), data, news)?,
        };
        let settled = Instant::now() + SETTLING;
        let changes = watch::channel(0).0;
        let agent = Arc::new(Self { state: Mutex::new(state), changes, settled });
        tokio::spawn(listen_to_news(Arc::downgrade(&agent), told));
        tokio::spawn(bind_again(Arc::downgrade(&agent)));
        Ok(agent)
    }

    /// Stops listening, and lets what is in flight end within `deadline`.
    pub async fn close(&self, deadline: Duration) {
        let proxies = self.state().serving.close();
        shut_down(proxies, deadline).await;
    }

    /// What is known can not be changed half-way by a panic: every change is one assignment.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn notify(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// Makes a change of what is served.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Serving) -> Result<T>,
        fence: &Fence,
    ) -> Result<T> {
        let mut state = self.state();
        state.check(fence)?;
        let value = change(&mut state.serving)?;
        drop(state);
        self.notify();
        Ok(value)
    }

    /// Answers a request of a client, known by its number. Runs to its end even when the client is
    /// gone.
    async fn answer(&self, client: u64, id: u64, request: Request) -> Frame {
        match request {
            Request::Apps => encode_answer(id, &Ok(self.state().keeper.apps())),
            Request::Get { app, key } => encode_answer(id, &self.state().keeper.get(&app, &key)),
            Request::Keys { app, prefix } => {
                encode_answer(id, &self.state().keeper.keys(&app, &prefix))
            }
            Request::Put { fence, key, value, expected } => {
                encode_answer(id, &self.state().keeper.put(&fence, key, value, expected))
            }
            Request::Delete { fence, key, version } => {
                encode_answer(id, &self.state().keeper.delete(&fence, &key, version))
            }
            Request::Acquire { app, holder, ttl } => {
                encode_answer(id, &self.state().keeper.acquire(&app, &holder, ttl, client))
            }
            Request::Renew { lease, ttl } => {
                encode_answer(id, &self.state().keeper.renew(&lease, ttl, client))
            }
            Request::Release { lease } => encode_answer(id, &self.state().keeper.release(&lease)),
            Request::SecretVersions { app, name } => {
                encode_answer(id, &self.state().keeper.secret_versions(&app, &name))
            }
            Request::ListSecrets { app } => {
                encode_answer(id, &self.state().keeper.list_secrets(&app))
            }
            Request::PutSealed { app, name, version, sealed } => {
                encode_answer(id, &self.state().keeper.put_sealed(&app, &name, version, &sealed))
            }
            Request::GetSealed { app, name, version } => {
                encode_answer(id, &self.state().keeper.get_sealed(&app, &name, version))
            }
            Request::DeleteSecrets { app, name, versions } => {
                encode_answer(id, &self.state().keeper.delete_secrets(&app, &name, &versions))
            }
            Request::SetTarget { fence, instance, target } => encode_answer(
                id,
                &self.change(|serving| serving.set_target(&fence, instance, *target), &fence),
            ),
            Request::RemoveTarget { fence, instance } => encode_answer(
                id,
                &self.change(|serving| serving.remove_target(&fence, &instance), &fence),
            ),
            Request::SetEndpoint { fence, service, listeners } => {
                encode_answer(id, &self.set_endpoint(&fence, service, listeners).await)
            }
            Request::RemoveEndpoint { fence, service } => {
                let gone = self.change(|serving| serving.remove_endpoint(&fence, &service), &fence);
                encode_answer(id, &shut_down_those(gone).await)
            }
            Request::Route { fence, service, instances } => encode_answer(
                id,
                &self.change(|serving| serving.route(&fence, &service, instances), &fence),
            ),
            Request::Drain { fence, service, instance, deadline } => {
                let proxies = self.change(|serving| serving.proxies(&fence, &service), &fence);
                encode_answer(id, &drain(proxies, &instance, deadline).await)
            }
            Request::Inspect => {
                self.settle().await;
                encode_answer(id, &Ok(self.state().serving.report()))
            }
            Request::WriteFiles { fence, folder, files } => {
                let checked = self.state().check(&fence);
                encode_answer(id, &checked.and_then(|()| files::write(&folder, &files)))
            }
            Request::ListFiles { folder } => encode_answer(id, &files::list(&folder)),
            Request::RemoveFiles { fence, folder, names } => {
                let checked = self.state().check(&fence);
                encode_answer(id, &checked.and_then(|()| files::remove(&folder, &names)))
            }
        }
    }

    /// Waits, just after the start, until what was ready before has said so again.
    async fn settle(&self) {
        let mut changes = self.changes.subscribe();
        while Instant::now() < self.settled && self.state().serving.is_settling() {
            let _ = timeout_at(self.settled, changes.changed()).await;
        }
    }

    async fn set_endpoint(
        &self,
        fence: &Fence,
        service: deploykit_core::model::ServiceName,
        listeners: Vec<Listener>,
    ) -> Result<()> {
        let in_the_way =
            self.change(|serving| serving.take_in_the_way(fence, &service, &listeners), fence);
        shut_down_those(in_the_way).await?;
        let gone = self.change(|serving| serving.set_endpoint(fence, service, listeners), fence);
        shut_down_those(gone).await
    }
}

async fn shut_down_those(proxies: Result<Vec<Arc<ServiceProxy>>>) -> Result<()> {
    shut_down(proxies?, LAST_REQUESTS).await;
    Ok(())
}

async fn shut_down(proxies: Vec<Arc<ServiceProxy>>, deadline: Duration) {
    let alone = proxies.into_iter().filter_map(Arc::into_inner);
    join_all(alone.map(|proxy| proxy.shutdown(deadline))).await;
}

async fn drain(
    proxies: Result<Vec<Arc<ServiceProxy>>>,
    instance: &str,
    deadline: Duration,
) -> Result<bool> {
    let proxies = proxies?;
    let left = join_all(proxies.iter().map(|proxy| proxy.drain(instance, deadline))).await;
    Ok(left.iter().all(|left| *left == 0))
}

async fn listen_to_news(
    agent: std::sync::Weak<Agent>,
    mut told: mpsc::UnboundedReceiver<follow::News>,
) {
    while let Some(news) = told.recv().await {
        let Some(agent) = agent.upgrade() else { return };
        if agent.state().serving.take(news) {
            agent.notify();
        }
    }
}

/// Binds addresses that an earlier agent had until all are ours again.
async fn bind_again(agent: std::sync::Weak<Agent>) {
    let mut told = false;
    while let Some(agent) = agent.upgrade() {
        let failed = agent.state().serving.bind_missing();
        if failed.is_empty() {
            return;
        }
        for (address, error) in failed.iter().filter(|_| !told) {
            tracing::warn!(%address, %error, "an address cannot be bound again");
        }
        told = true;
        drop(agent);
        tokio::time::sleep(BIND_AGAIN).await;
    }
}
