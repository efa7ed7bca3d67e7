//! A [`Runtime`](crate::Runtime) whose instances are simulated.

mod app;
mod exec;
mod life;
mod prober;
mod requests;
mod runtime;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::{Images, Secrets, State, lock};
use crate::capability::{Capabilities, Fencing, SelfHeal};
use crate::error::{Error, ErrorKind, Result};
use crate::feature::Feature;
use crate::model::AppName;
use crate::state::Fence;
use app::App;
pub use requests::Response;

/// The word for this backend.
const NAME: &str = "memory";

/// A [`Runtime`](crate::Runtime) whose instances are simulated on tokio's clock: they obey the
/// [dials](super::dial) in their environment, answer [requests](Host::request) as the test
/// application does, crash, are started again with growing pauses, and are probed.
///
/// Clones are the same host. When the last one is dropped, everything ends.
#[derive(Clone, Debug)]
pub struct Host(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    capabilities: Capabilities,
    state: State,
    secrets: Secrets,
    images: Images,
    apps: Mutex<BTreeMap<AppName, App>>,
    mutations: AtomicU64,
    /// Told of each change of anything.
    changes: watch::Sender<u64>,
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// A host with nothing on it, that can do whatever can be simulated.
    pub fn new() -> Self {
        Self::with_capabilities(Capabilities::new(
            SelfHeal::WhileHosted,
            Fencing::Enforced,
            [
                Feature::Executables,
                Feature::Images,
                Feature::HostPorts,
                Feature::PerReplicaVolumes,
                Feature::RestartPolicies,
                Feature::ExecProbes,
                Feature::GrpcProbes,
                Feature::BlueGreen,
                Feature::Canary,
            ],
        ))
    }

    /// A host that declares other capabilities: for tests of what is refused where something is
    /// not there. It simulates no more than [`Host::new`] declares.
    pub fn with_capabilities(mut capabilities: Capabilities) -> Self {
        capabilities.survives_deployer = false;
        Self(Arc::new(Shared {
            capabilities,
            state: State::default(),
            secrets: Secrets::default(),
            images: Images::default(),
            apps: Mutex::default(),
            mutations: AtomicU64::new(0),
            changes: watch::Sender::new(0),
        }))
    }

    /// How many mutating calls it has accepted, those to its stores aside.
    pub fn mutations(&self) -> u64 {
        self.0.mutations.load(Ordering::Relaxed)
    }

    /// Its state store.
    pub fn state_store(&self) -> &State {
        &self.0.state
    }

    /// Its images.
    pub fn image_store(&self) -> &Images {
        &self.0.images
    }

    /// Ends an instance as `kill -9` does; its restart policy decides what comes then.
    ///
    /// # Errors
    /// `NotFound` where no such instance runs.
    pub fn kill(&self, app: &AppName, instance: &str) -> Result<()> {
        self.change(app, |app| {
            let sim = app.instances.get_mut(instance).filter(|sim| sim.running())?;
            sim.life.kill.notify_one();
            Some(())
        })
        .ok_or_else(|| not_found("kill an instance", instance))
    }

    /// Lets an instance vanish without a trace, as if somebody else had removed it.
    ///
    /// # Errors
    /// `NotFound` where there is no such instance.
    pub fn vanish(&self, app: &AppName, instance: &str) -> Result<()> {
        self.change(app, |app| app.instances.remove(instance))
            .map(|sim| sim.life.task.abort())
            .ok_or_else(|| not_found("let an instance vanish", instance))
    }

    /// Reads or changes an app, and tells of it.
    fn change<T>(&self, app: &AppName, change: impl FnOnce(&mut App) -> T) -> T {
        let result = change(lock(&self.0.apps).entry(app.clone()).or_default());
        self.0.changes.send_modify(|n| *n += 1);
        result
    }

    /// Reads an app.
    fn read<T>(&self, app: &AppName, read: impl FnOnce(&App) -> T) -> T {
        match lock(&self.0.apps).get(app) {
            Some(app) => read(app),
            None => read(&App::default()),
        }
    }

    /// Makes a change by a deployer, unless its lock has been taken over.
    fn mutate<T>(&self, fence: &Fence, change: impl FnOnce(&mut App) -> Result<T>) -> Result<T> {
        self.0.state.fenced(fence, || {
            self.0.mutations.fetch_add(1, Ordering::Relaxed);
            self.change(&fence.app, change)
        })?
    }
}

fn not_found(operation: &str, instance: &str) -> Error {
    let error = Error::new(ErrorKind::NotFound, operation, "there is no such instance");
    error.on(NAME).with("instance", instance)
}

#[cfg(test)]
mod tests;
