//! The one engine: plan, lock, apply, history, rollback, the same on every backend.

mod apply;
mod diff;
mod lock;
mod order;
mod prepare;
mod record;
mod run;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::feature::Feature;
use crate::model::{App, AppName, SecretName, VolumeName};
use crate::observation::Observation;
use crate::orchestrator::{ExecOutput, ExecRequest, LogLine, LogQuery, Orchestrator};
use crate::plan::{Change, Plan};
use crate::policy::ImagePolicy;
use crate::revision::Revision;
use crate::secret::SecretValue;
use record::Record;

/// Plans and applies changes of apps on one backend.
///
/// ```
/// use std::sync::Arc;
/// use deploykit_core::model::{App, ImageSpec, Port, Service};
/// use deploykit_core::{Change, Deployer, Reconciler, Silent, memory};
/// # tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(async {
/// let deployer = Deployer::new(Arc::new(Reconciler::new(memory::Host::new())));
/// let app = App::build("blog")
///     .service(Service::build("web", ImageSpec::binary("/usr/bin/env")).port(Port::http(8080)))
///     .validate()?;
/// let ready = deployer.prepare(app).await?;
/// let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
/// assert_eq!(plan.to_string(), "blog: deploy\n  + service web: new\n  ~ collect what no revision names");
/// let done = deployer.apply(plan, &mut Silent).await?;
/// assert_eq!(done.revision, Some(1));
/// # Ok::<(), deploykit_core::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Deployer {
    backend: Arc<dyn Orchestrator>,
    holder: String,
    lock_wait: Duration,
    allowed: BTreeSet<Feature>,
    image_policy: Option<Arc<dyn ImagePolicy>>,
}

impl std::fmt::Debug for Deployer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployer")
            .field("backend", &self.backend.identity())
            .field("holder", &self.holder)
            .finish_non_exhaustive()
    }
}

/// What an apply has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Applied {
    /// The revision that the app is at now; nothing where it was removed.
    pub revision: Option<u64>,
    /// How many steps were taken.
    pub steps: usize,
    /// The volumes that a removal has left.
    pub kept_volumes: Vec<VolumeName>,
}

/// What an app is, and what runs of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Status {
    /// The app.
    pub app: AppName,
    /// Its newest revision; nothing where it is not deployed.
    pub revision: Option<Revision>,
    /// What runs.
    pub observation: Observation,
}

impl Deployer {
    /// A deployer on `backend` that calls itself by its program and process id, refuses at once
    /// when another deployer is at work, and allows no omission.
    pub fn new(backend: Arc<dyn Orchestrator>) -> Self {
        let program = std::env::args().next().unwrap_or_default();
        let program = program.rsplit('/').next().unwrap_or_default();
        let holder = format!("{program} (pid {})", std::process::id());
        Self {
            backend,
            holder,
            lock_wait: Duration::ZERO,
            allowed: BTreeSet::new(),
            image_policy: None,
        }
    }

    /// Calls itself `holder` where others are told who is at work.
    pub fn with_holder(mut self, holder: impl Into<String>) -> Self {
        self.holder = holder.into();
        self
    }

    /// Waits this long for another deployer to end before it refuses.
    pub fn with_lock_wait(mut self, wait: Duration) -> Self {
        self.lock_wait = wait;
        self
    }

    /// Lets the backend leave out these parts of the model where it cannot honour them.
    pub fn allow(mut self, features: impl IntoIterator<Item = Feature>) -> Self {
        self.allowed.extend(features);
        self
    }

    /// Deploys no image that `policy` refuses. A rollback is not asked again: it returns to images
    /// that were accepted when they were deployed.
    pub fn with_image_policy(mut self, policy: Arc<dyn ImagePolicy>) -> Self {
        self.image_policy = Some(policy);
        self
    }

    /// The backend.
    pub fn backend(&self) -> &Arc<dyn Orchestrator> {
        &self.backend
    }

    /// The secrets of an app.
    pub fn secrets<'a>(&'a self, app: &'a AppName) -> AppSecrets<'a> {
        AppSecrets { deployer: self, app }
    }

    fn record<'a>(&'a self, app: &'a AppName) -> Record<'a> {
        Record { state: self.backend.state(), app }
    }

    /// Fixes everything of an app that needs looking up: validates it, checks it against the
    /// backend's capabilities, makes its images ready, asks the image policy, finds its secrets'
    /// versions.
    ///
    /// Cancel-safe: what it leaves behind are images, which the next apply collects.
    ///
    /// # Errors
    /// `Invalid` or `Unsupported` with every problem at once.
    pub async fn prepare(&self, app: App) -> Result<crate::ResolvedApp> {
        self.prepare_with(app, &mut crate::Silent).await
    }

    /// Like [`prepare`](Self::prepare), and reports what becomes of images that are built, pulled
    /// or pushed, which may take minutes: [`Event::Image`](crate::Event::Image).
    ///
    /// # Errors
    /// Those of [`prepare`](Self::prepare).
    pub async fn prepare_with(
        &self,
        app: App,
        progress: &mut dyn crate::Progress,
    ) -> Result<crate::ResolvedApp> {
        prepare::prepare(self, app, progress).await
    }

    /// What a change would do. Changes nothing.
    ///
    /// # Errors
    /// `NotFound` where the app, service, job or revision does not exist; `Invalid` or
    /// `Unsupported` where the change cannot be; `Conflict` where the app is left half changed and
    /// has to be deployed or rolled back first.
    pub async fn plan(&self, change: Change) -> Result<Plan> {
        diff::plan(self, change).await
    }

    /// Does what a plan says, and returns when all of it is ready.
    ///
    /// Dropping the future stops before the next mutating call; what is half done is finished by
    /// the next apply, and the lock is free after its lease.
    ///
    /// # Errors
    /// `Conflict` where the plan is stale or another deployer is at work: nothing was changed.
    /// `Failed` with [diagnoses](Error::diagnoses) where a step has failed; by default the app has
    /// then been rolled back, which the message says.
    pub async fn apply(&self, plan: Plan, progress: &mut dyn crate::Progress) -> Result<Applied> {
        apply::apply(self, plan, progress).await
    }

    /// What an app is, and what runs of it.
    pub async fn status(&self, app: &AppName) -> Result<Status> {
        let revision = self.record(app).newest().await?;
        let observation = self.backend.observe(app).await?;
        Ok(Status { app: app.clone(), revision, observation })
    }

    /// The revisions of an app that are kept, oldest first.
    pub async fn history(&self, app: &AppName) -> Result<Vec<Revision>> {
        self.record(app).all().await
    }

    /// The apps of the backend.
    pub async fn apps(&self) -> Result<Vec<AppName>> {
        self.backend.state().apps().await
    }

    /// See [`Orchestrator::watch`].
    pub async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        self.backend.watch(app).await
    }

    /// See [`Orchestrator::logs`].
    pub async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.backend.logs(app, query).await
    }

    /// See [`Orchestrator::exec`].
    ///
    /// # Errors
    /// Before anything is run: `Unsupported` for a terminal where the backend has none, `Invalid`
    /// for a terminal and standard input at once.
    pub async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        if request.terminal.is_some() {
            let refused = |kind, message| {
                let error = Error::new(kind, "run a command in a terminal", message);
                Err(error.on(self.backend.name()).with("instance", instance))
            };
            if !self.backend.capabilities().terminals {
                let message = "this backend gives commands no terminal; run it without one";
                return refused(ErrorKind::Unsupported, message);
            }
            if !request.stdin.is_empty() {
                let message =
                    "standard input is what is typed at the terminal; give it by one of both";
                return refused(ErrorKind::Invalid, message);
            }
        }
        self.backend.exec(app, instance, request).await
    }
}

/// The secrets of one app; made by [`Deployer::secrets`].
#[derive(Debug)]
pub struct AppSecrets<'a> {
    deployer: &'a Deployer,
    app: &'a AppName,
}

impl AppSecrets<'_> {
    /// Adds a version and returns its number. The next apply rolls the services that mount it.
    pub async fn put(&self, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.deployer.backend.secrets().put(self.app, name, value).await
    }

    /// Adds version 1 where there is none, and returns the newest version's number.
    pub async fn ensure(&self, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.deployer.backend.secrets().ensure(self.app, name, value).await
    }

    /// The secrets with their newest versions.
    pub async fn list(&self) -> Result<Vec<(SecretName, u64)>> {
        self.deployer.backend.secrets().list(self.app).await
    }

    /// The versions of a secret, oldest first.
    pub async fn versions(&self, name: &SecretName) -> Result<Vec<u64>> {
        self.deployer.backend.secrets().versions(self.app, name).await
    }

    /// Deletes every version of a secret.
    ///
    /// # Errors
    /// `Conflict` where a kept revision names it.
    pub async fn remove(&self, name: &SecretName) -> Result<()> {
        let revisions = self.deployer.history(self.app).await?;
        if let Some(user) = revisions.iter().rev().find(|r| r.app.secrets.contains_key(name)) {
            let message = format!("revision {} uses it", user.number);
            return Err(Error::new(ErrorKind::Conflict, "remove the secret", message)
                .on(self.deployer.backend.name())
                .with("secret", name));
        }
        let versions = self.versions(name).await?;
        self.deployer.backend.secrets().delete(self.app, name, &versions).await
    }
}
