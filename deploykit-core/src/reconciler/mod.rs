//! Makes an orchestrator of a host that has no controller of its own.
//!
//! Every step is a loop: look, compare with the goal, act, wait for a change. What a killed
//! deployer left half done is therefore found and finished by whoever comes next.

mod diagnose;
mod job;
mod remove;
mod rollout;
mod strategy;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Weak};

use async_trait::async_trait;
use futures_util::future::try_join_all;
use futures_util::stream::BoxStream;
use tokio::sync::Mutex;

use crate::capability::Capabilities;
use crate::error::{Error, ErrorKind, Problem, Result};
use crate::hash::SpecHash;
use crate::model::{App, AppName, Condition, ServiceName};
use crate::observation::Observation;
use crate::orchestrator::{
    ExecOutput, ExecRequest, ImageBuilder, LogLine, LogQuery, Orchestrator, StepContext,
};
use crate::plan::{Goal, Step};
use crate::resolved::{EndpointSpec, Template};
use crate::runtime::Runtime;
use crate::secret::SecretStore;
use crate::state::StateStore;
use view::View;

/// An [`Orchestrator`] over a [`Runtime`]: rolling updates, blue-green, canaries, health gating,
/// draining, jobs.
///
/// It never starts a crashed instance again: that is the runtime's, by the restart policy.
///
/// ```
/// use deploykit_core::{Orchestrator, Reconciler, memory};
/// let backend = Reconciler::new(memory::Host::new());
/// assert_eq!(backend.name(), "memory");
/// ```
#[derive(Debug)]
pub struct Reconciler<R> {
    runtime: Arc<R>,
    views: Mutex<HashMap<AppName, Weak<View>>>,
}

impl<R: Runtime> Reconciler<R> {
    /// An orchestrator over `runtime`.
    pub fn new(runtime: R) -> Self {
        Self { runtime: Arc::new(runtime), views: Mutex::default() }
    }

    /// The runtime.
    pub fn runtime(&self) -> &R {
        &self.runtime
    }

    /// The view of an app that all steps of an apply share.
    async fn view(&self, app: &AppName) -> Result<Arc<View>> {
        // Held while it watches, so that of steps that begin at once one does.
        let mut views = self.views.lock().await;
        let known = views.get(app).and_then(Weak::upgrade);
        if let Some(view) = known.filter(|view| view.is_open()) {
            return Ok(view);
        }
        let changes = self.runtime.watch(app).await?;
        views.retain(|_, view| view.strong_count() > 0);
        let view = View::open(Arc::clone(&self.runtime), app.clone(), changes);
        views.insert(app.clone(), Arc::downgrade(&view));
        Ok(view)
    }
}

/// What the steps of one service or job work with.
struct Work<'a, R> {
    runtime: &'a R,
    view: Arc<View>,
    context: &'a StepContext,
    name: &'a ServiceName,
}

impl<R: Runtime> Work<'_, R> {
    fn template(&self) -> Result<(Template, SpecHash)> {
        let template = self.context.target.template(self.name).ok_or_else(|| {
            let message = "the revision has no such service or job, or lacks its image or secrets";
            Error::new(ErrorKind::Invalid, "execute a step", message).with("service", self.name)
        })?;
        let hash = SpecHash::of(&template);
        Ok((template, hash))
    }

    fn depends_on(&self) -> BTreeMap<ServiceName, Condition> {
        let workload = self.context.target.app.workload(self.name);
        workload.map(|workload| workload.depends_on.clone()).unwrap_or_default()
    }

    /// The endpoints that are missing of those whose addresses instances of `template` are told,
    /// and the service's own.
    fn missing_endpoints(&self, seen: &Observation, template: &Template) -> Vec<EndpointSpec> {
        let names = template.peers.keys().chain([self.name]).collect::<BTreeSet<_>>();
        let missing = names.into_iter().filter_map(|name| {
            let endpoint = self.context.target.endpoint(name)?;
            let hash = SpecHash::of_endpoint(&endpoint);
            let there = seen.endpoints.get(name).is_some_and(|e| e.hash == hash);
            (!there).then_some(endpoint)
        });
        missing.collect()
    }

    async fn make_endpoints(&self, missing: &[EndpointSpec]) -> Result<()> {
        let fence = &self.context.fence;
        try_join_all(missing.iter().map(|spec| self.runtime.ensure_endpoint(fence, spec))).await?;
        Ok(())
    }
}

#[async_trait]
impl<R: Runtime> Orchestrator for Reconciler<R> {
    fn name(&self) -> &str {
        self.runtime.name()
    }

    fn identity(&self) -> String {
        self.runtime.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.runtime.capabilities()
    }

    /// What instances are asked to do is the same on every runtime: capabilities say it all.
    fn refuses(&self, _: &App) -> Vec<Problem> {
        Vec::new()
    }

    fn state(&self) -> &dyn StateStore {
        self.runtime.state()
    }

    fn secrets(&self) -> &dyn SecretStore {
        self.runtime.secrets()
    }

    fn images(&self) -> &dyn ImageBuilder {
        self.runtime.images()
    }

    async fn observe(&self, app: &AppName) -> Result<Observation> {
        self.runtime.inspect(app).await
    }

    async fn execute(&self, step: &Step, context: &StepContext) -> Result<()> {
        let fence = &context.fence;
        let app = &context.target.app;
        let work = |name| async move {
            let view = self.view(&fence.app).await?;
            Ok::<_, Error>(Work { runtime: &*self.runtime, view, context, name })
        };
        match &step.goal {
            Goal::Network(name) => {
                let network = app.networks.get(name).cloned().unwrap_or_default();
                self.runtime.ensure_network(fence, name, &network).await
            }
            Goal::Volume(name) => {
                let volume = app.volumes.get(name).cloned().unwrap_or_default();
                self.runtime.ensure_volume(fence, name, &volume).await
            }
            Goal::Service(name) => {
                let replicas = app.services.get(name).map(|s| (s.replicas, s.update.clone()));
                match replicas {
                    Some((replicas, update)) => {
                        rollout::run(&work(name).await?, replicas, &update).await
                    }
                    None => work(name).await?.template().map(drop),
                }
            }
            Goal::Job { job, run } => job::run(&work(job).await?, run).await,
            Goal::Schedule(job) => {
                let message = "the backend runs no jobs by themselves";
                Err(Error::new(ErrorKind::Unsupported, "schedule the job", message)
                    .on(self.name())
                    .with("job", job))
            }
            Goal::Raw => {
                let message = "the backend takes no raw objects";
                Err(Error::new(ErrorKind::Unsupported, "apply raw objects", message)
                    .on(self.name()))
            }
            Goal::RemoveService(name) => remove::service(&work(name).await?).await,
            Goal::RemoveNetwork(name) => self.runtime.remove_network(fence, name).await,
            Goal::RemoveVolume(name) => self.runtime.remove_volume(fence, name).await,
            Goal::Collect => self.runtime.collect(fence, &context.kept).await,
        }
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        self.runtime.watch(app).await
    }

    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.runtime.logs(app, query).await
    }

    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        self.runtime.exec(app, instance, request).await
    }
}
