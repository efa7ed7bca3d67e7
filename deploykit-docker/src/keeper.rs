//! The keeper of an app: the agent that holds its state and secrets and asks its probes.
//!
//! It is made by the first write and goes with the last, so that a removed app leaves nothing. A
//! keeper that was stopped or removed by somebody is brought back by whoever needs it next; its
//! state is in a volume.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::{
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use deploykit_agent::control::{Client, RemoteSecrets, RemoteState, Report};
use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{
    Entry, Error, ErrorKind, Expected, Fence, Lease, Result, SecretStore, SecretValue, StateStore,
};
use futures_util::future::join;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::agent::{self, Program, STATE};
use crate::engine::Engine;
use crate::error::{Mapped as _, error, status};
use crate::names::{self, Role};
use crate::{images, networks};

/// The operation of the error that tells that an app has no keeper.
const REACH: &str = "reach the keeper of the app";
const MOVE: &str = "move the keeper to another program";
const REMOVE: &str = "remove the keeper of the app";

/// How often, and how long apart, the end of somebody else's removal is waited for.
const LOOKS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// How long the removal of a keeper keeps others from deploying, should it not get to its end.
const FREE: Duration = Duration::from_secs(10);

/// The keepers of all apps of an engine.
#[derive(Clone, Debug)]
pub(crate) struct Keepers {
    engine: Engine,
    program: Program,
    keys: PathBuf,
    known: Arc<Mutex<HashMap<AppName, Keeper>>>,
    /// One keeper is made at a time.
    making: Arc<AsyncMutex<()>>,
}

/// One keeper.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    pub(crate) agent: Client,
    pub(crate) state: RemoteState,
    pub(crate) secrets: RemoteSecrets,
}

impl Keepers {
    pub(crate) fn new(engine: Engine, program: Program, keys: PathBuf) -> Self {
        Self { engine, program, keys, known: Arc::default(), making: Arc::default() }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<AppName, Keeper>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keeper of an app, where that has one.
    async fn find(&self, app: &AppName) -> Result<Option<Keeper>> {
        if let Some(keeper) = self.known().get(app) {
            return Ok(Some(keeper.clone()));
        }
        if !self.has_state(app).await? {
            return Ok(None);
        }
        Ok(Some(self.remember(app)))
    }

    /// The keeper of an app that has one: what holds a fence has taken it from there.
    pub(crate) async fn get(&self, app: &AppName) -> Result<Keeper> {
        self.find(app).await?.ok_or_else(|| missing(app))
    }

    /// The keeper of an app, made where there is none.
    async fn make(&self, app: &AppName) -> Result<Keeper> {
        if let Some(keeper) = self.find(app).await? {
            return Ok(keeper);
        }
        self.start(app, true).await?;
        Ok(self.remember(app))
    }

    fn remember(&self, app: &AppName) -> Keeper {
        let (keepers, name) = (self.clone(), app.clone());
        let agent = Client::new(move || {
            let (keepers, name) = (keepers.clone(), name.clone());
            async move {
                let container = names::keeper(&name);
                let mut looks = 0;
                loop {
                    match agent::connect(&keepers.engine, &container).await {
                        // It may end again as soon as it has been started: somebody removes it.
                        Err(e) if is_away(&e) && looks < LOOKS => {
                            if looks > 0 {
                                tokio::time::sleep(PAUSE).await;
                            }
                            looks += 1;
                            keepers.start(&name, false).await?;
                        }
                        connected => return connected,
                    }
                }
            }
        });
        let state = RemoteState::new(agent.clone());
        let secrets = RemoteSecrets::new(agent.clone(), &self.keys);
        let keeper = Keeper { agent, state, secrets };
        self.known().entry(app.clone()).or_insert(keeper).clone()
    }

    async fn has_state(&self, app: &AppName) -> Result<bool> {
        let found = self.engine.api.inspect_volume(&names::state(app)).await.optional(REACH)?;
        match found {
            Some(volume) if names::are_ours(&volume.labels, app) => Ok(true),
            Some(volume) => Err(foreign("volume", &volume.name)),
            None => Ok(false),
        }
    }

    /// Starts the container of a keeper, making what is missing of it: all of it with `new`, else
    /// what lies around the state that is there.
    async fn start(&self, app: &AppName, new: bool) -> Result<()> {
        let _making = self.making.lock().await;
        for _ in 0..LOOKS {
            match self.try_start(app, new).await {
                // Somebody else is removing it, or has just removed what it was to be made of.
                Err(e) if e.message().contains("removal") => tokio::time::sleep(PAUSE).await,
                Err(e) if e.operation() != REACH && is_passing(&e) && !e.is_retryable() => {
                    tracing::debug!(error = %e, "the keeper is made once more");
                    // Not one that runs.
                    let options = RemoveContainerOptionsBuilder::new().v(true).build();
                    let api = &self.engine.api;
                    let _ = api.remove_container(&names::keeper(app), Some(options)).await;
                    tokio::time::sleep(PAUSE).await;
                }
                started => return started,
            }
        }
        let message = "the engine does not get done with removing it; see its log";
        Err(error(ErrorKind::Timeout, "start the keeper of the app", message).with("app", app))
    }

    async fn try_start(&self, app: &AppName, new: bool) -> Result<()> {
        let network = names::app_network(app);
        if !new && !self.has_state(app).await? {
            self.known().remove(app);
            // It may have been made again by an attempt that found the keeper gone then. Who is on
            // it keeps it.
            let _ = self.engine.api.remove_network(&network).await;
            return Err(missing(app));
        }
        let image = agent::image(&self.engine, app, &self.program);
        let image = match new {
            // Both take a while. Somebody may remove it yet, so it is looked for again below.
            true => {
                let (image, made) =
                    join(image, self.engine.ensure_network(app, &network, &[])).await;
                if image.is_err() {
                    // Who is on it keeps it.
                    let _ = self.engine.api.remove_network(&network).await;
                }
                made.and(image)?
            }
            false => image.await?,
        };
        let mine = format!("{:016x}", fastrand::u64(..));
        let mut labels = names::labels(app, Role::State);
        labels.insert(names::MADE_AS.to_owned(), mine.clone());
        let volume = agent::Volume {
            name: names::state(app),
            target: STATE,
            labels,
            options: HashMap::new(),
        };
        let keeper = names::keeper(app);
        agent::Spec {
            name: keeper.clone(),
            labels: names::labels(app, Role::Keeper),
            image,
            volume: Some(volume),
            network: Some((network.clone(), Vec::new())),
            ports: HashMap::new(),
        }
        .create(&self.engine, app)
        .await?;
        // Its volume is in use from here on, and stays. Was it made by this, then somebody has
        // removed the app since it was looked for, and there is nothing to bring back.
        if !new && self.made_as(app).await?.as_ref() == Some(&mine) {
            self.take_back(app).await?;
            self.known().remove(app);
            return Err(missing(app));
        }
        self.engine.ensure_network(app, &network, &[]).await?;
        agent::start(&self.engine, &keeper).await?;
        networks::join_keeper(&self.engine, app).await
    }

    /// Makes the keeper anew where its program is to be another one. Its state is in a volume, and
    /// so is whose the lock is.
    async fn move_program(&self, app: &AppName) -> Result<()> {
        let name = names::keeper(app);
        let Some(found) = self.engine.api.inspect_container(&name, None).await.optional(MOVE)?
        else {
            return Ok(());
        };
        let config = found.config.unwrap_or_default();
        let image = agent::image(&self.engine, app, &self.program).await?;
        if config.image == Some(image) || !names::are_ours(&config.labels.unwrap_or_default(), app)
        {
            return Ok(());
        }
        {
            let _making = self.making.lock().await;
            self.known().remove(app);
            self.engine.remove(&name).await?;
        }
        self.start(app, false).await
    }

    /// What the volume of a keeper was marked with by who made it.
    async fn made_as(&self, app: &AppName) -> Result<Option<String>> {
        let found = self.engine.api.inspect_volume(&names::state(app)).await.optional(REACH)?;
        Ok(found.and_then(|mut volume| volume.labels.remove(names::MADE_AS)))
    }

    /// Removes a keeper that was made in vain, unless somebody has started it meanwhile.
    async fn take_back(&self, app: &AppName) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().v(true).build();
        match self.engine.api.remove_container(&names::keeper(app), Some(options)).await {
            // It runs, or is being removed.
            Err(cause) if status(&cause) == Some(409) => return Ok(()),
            removed => removed.optional(REMOVE)?,
        };
        self.remove_around(app).await.map(drop)
    }

    /// Removes the keeper of an app of which nothing is left, and all that lay around it.
    async fn remove_unused(&self, app: &AppName) -> Result<()> {
        let Some(keeper) = self.find(app).await? else { return Ok(()) };
        if !self.is_unused(app, &keeper).await? {
            return Ok(());
        }
        // Whoever has the lock, or waits for it, shall not lose what it is kept in.
        let lease = match keeper.state.acquire(app, "the removal of its keeper", FREE).await {
            Err(e) if e.kind() == ErrorKind::Conflict => return Ok(()),
            lease => lease?,
        };
        for _ in 0..LOOKS {
            if self.try_remove(app).await? {
                return Ok(());
            }
            // Who only looks has brought it back, from another process; who writes is seen by it.
            tracing::debug!(%app, "the keeper is back, and is removed once more");
            tokio::time::sleep(PAUSE).await;
            let Some(keeper) = self.find(app).await? else { continue };
            if or_nothing(self.is_unused(app, &keeper).await)? == Some(false) {
                return or_nothing(keeper.state.release(&lease).await).map(drop);
            }
        }
        let message = "somebody brings it back again and again; see who looks at the app";
        Err(error(ErrorKind::Timeout, REMOVE, message).with("app", app))
    }

    /// Whether nothing is written in a keeper, and nothing runs beside it.
    async fn is_unused(&self, app: &AppName, keeper: &Keeper) -> Result<bool> {
        if keeper.state.apps().await?.contains(app) || !keeper.secrets.list(app).await?.is_empty() {
            return Ok(false);
        }
        let containers = self.engine.containers(app, None).await?;
        let mut roles = containers.iter().filter_map(|c| c.labels.as_ref()?.get(names::ROLE));
        Ok(roles.all(|role| role == Role::Keeper.as_str()))
    }

    /// Removes the container, volume and network of a keeper. Returns whether they are gone, and
    /// stay: not where somebody else has brought it back meanwhile.
    async fn try_remove(&self, app: &AppName) -> Result<bool> {
        // Who looks at the app meanwhile shall not bring it back.
        let _making = self.making.lock().await;
        self.known().remove(app);
        self.engine.remove(&names::keeper(app)).await?;
        self.remove_around(app).await
    }

    /// Removes what a keeper without a container had; the network last: by that it is known that a
    /// removal was cut off. Returns whether there is none again.
    async fn remove_around(&self, app: &AppName) -> Result<bool> {
        images::collect_agents(&self.engine, app, None).await?;
        let options = RemoveVolumeOptionsBuilder::new().build();
        match self.engine.api.remove_volume(&names::state(app), Some(options)).await {
            // It is in use.
            Err(cause) if status(&cause) == Some(409) => return Ok(false),
            removed => removed.optional(REMOVE)?,
        };
        match self.engine.api.remove_network(&names::app_network(app)).await {
            // "has active endpoints": those of others, or of a keeper that is made anew.
            Err(cause) if status(&cause) == Some(403) => Ok(true),
            removed => removed.optional(REMOVE).map(|_| true),
        }
    }

    /// What the keeper knows; nothing where the app has none.
    pub(crate) async fn report(&self, app: &AppName) -> Result<Report> {
        match self.find(app).await? {
            Some(keeper) => Ok(or_nothing(keeper.agent.inspect().await)?.unwrap_or_default()),
            None => Ok(Report::default()),
        }
    }
}

/// Whether an agent could not be reached because its container does not run.
fn is_away(cause: &Error) -> bool {
    matches!(cause.kind(), ErrorKind::NotFound | ErrorKind::AlreadyExists)
        || cause.message().contains("is not running")
}

/// Whether it may be otherwise when somebody has got done with removing a keeper.
fn is_passing(cause: &Error) -> bool {
    cause.is_retryable()
        || cause.kind() == ErrorKind::NotFound
            && cause.operation() != deploykit_agent::binary::OPERATION
}

fn missing(app: &AppName) -> Error {
    error(ErrorKind::NotFound, REACH, "it has none, so nothing is deployed").with("app", app)
}

/// What is there under our name, and is not ours.
pub(crate) fn foreign(what: &str, name: &str) -> Error {
    let message = format!(
        "the engine has a {what} `{name}` that DeployKit has not made; remove or rename it"
    );
    error(ErrorKind::AlreadyExists, &format!("make a {what}"), message)
}

/// Nothing where the keeper has gone meanwhile.
fn or_nothing<T>(answer: Result<T>) -> Result<Option<T>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.operation() == REACH && e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

#[async_trait]
impl StateStore for Keepers {
    async fn apps(&self) -> Result<Vec<AppName>> {
        let label = [format!("{}={}", names::MANAGED_BY, names::US)];
        let role = format!("{}={}", names::ROLE, Role::State.as_str());
        let filters = [("label".to_owned(), vec![label[0].clone(), role])].into();
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.engine.api.list_volumes(Some(options)).await.tried("list the apps")?;
        let names = found.volumes.unwrap_or_default();
        let names = names.iter().filter_map(|volume| volume.labels.get(names::APP)?.parse().ok());
        let mut apps: Vec<AppName> = Vec::new();
        for app in names {
            let Some(keeper) = self.find(&app).await? else { continue };
            let known = match or_nothing(keeper.state.apps().await) {
                Ok(known) => known.is_some_and(|apps| apps.contains(&app)),
                // An app that somebody is removing just now is none any more.
                Err(_) if !self.has_state(&app).await? => false,
                Err(e) => return Err(e),
            };
            if known {
                apps.push(app);
            }
        }
        apps.sort();
        Ok(apps)
    }

    async fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        let Some(keeper) = self.find(app).await? else { return Ok(None) };
        Ok(or_nothing(keeper.state.get(app, key).await)?.flatten())
    }

    async fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        let Some(keeper) = self.find(app).await? else { return Ok(Vec::new()) };
        Ok(or_nothing(keeper.state.keys(app, prefix).await)?.unwrap_or_default())
    }

    async fn put(&self, fence: &Fence, key: &str, value: &str, expected: Expected) -> Result<u64> {
        self.get(&fence.app).await?.state.put(fence, key, value, expected).await
    }

    async fn delete(&self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        self.get(&fence.app).await?.state.delete(fence, key, version).await
    }

    async fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease> {
        if self.program.moves {
            self.move_program(app).await?;
        }
        let until = Instant::now() + PAUSE * LOOKS;
        loop {
            let acquired =
                async { self.make(app).await?.state.acquire(app, holder, ttl).await }.await;
            match acquired {
                // Somebody gives the lock back, and removes the keeper that nothing needs any more.
                Err(e) if is_passing(&e) && Instant::now() < until => {
                    tracing::debug!(error = %e, "the keeper is asked once more");
                    tokio::time::sleep(PAUSE).await;
                }
                acquired => return acquired,
            }
        }
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        self.get(&lease.fence.app).await?.state.renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        let app = &lease.fence.app;
        let Some(keeper) = self.find(app).await? else { return Ok(()) };
        or_nothing(keeper.state.release(lease).await)?;
        self.remove_unused(app).await
    }
}

#[async_trait]
impl SecretStore for Keepers {
    async fn put(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.make(app).await?.secrets.put(app, name, value).await
    }

    async fn ensure(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.make(app).await?.secrets.ensure(app, name, value).await
    }

    async fn get(&self, app: &AppName, name: &SecretName, version: u64) -> Result<SecretValue> {
        let none = || {
            error(ErrorKind::NotFound, "read a secret", "there is no such version")
                .with("app", app)
                .with("secret", name)
                .with("version", version)
        };
        let keeper = self.find(app).await?.ok_or_else(none)?;
        keeper.secrets.get(app, name, version).await
    }

    async fn versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>> {
        let Some(keeper) = self.find(app).await? else { return Ok(Vec::new()) };
        Ok(or_nothing(keeper.secrets.versions(app, name).await)?.unwrap_or_default())
    }

    async fn list(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        let Some(keeper) = self.find(app).await? else { return Ok(Vec::new()) };
        Ok(or_nothing(keeper.secrets.list(app).await)?.unwrap_or_default())
    }

    async fn delete(&self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()> {
        let Some(keeper) = self.find(app).await? else { return Ok(()) };
        or_nothing(keeper.secrets.delete(app, name, versions).await)?;
        self.remove_unused(app).await
    }
}
