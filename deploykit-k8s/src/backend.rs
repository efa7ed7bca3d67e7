//! The backend.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::{App, AppName, ServiceName};
use deploykit_core::{
    Capabilities, Drift, ErrorKind, ExecOutput, ExecRequest, Feature, Fencing, Goal, ImageBuilder,
    LogLine, LogQuery, Observation, Orchestrator, Problem, ResolvedApp, Result, SecretStore,
    SelfHeal, StateStore, Step, StepContext,
};
use futures_util::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::DeleteParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::client::connect;
use crate::cluster::Cluster;
use crate::config::K8sConfig;
use crate::error::{BACKEND, client, error};
use crate::execute::Work;
use crate::images::Images;
use crate::secrets::Secrets;
use crate::state::State;
use crate::view::Views;
use crate::{drift, exec, execute, labels, logs, observe, refuse, watch};

/// How long a connection may take to be made.
const CONNECTING: Duration = Duration::from_secs(10);

/// Kubernetes as a backend: one namespace of a cluster.
///
/// ```no_run
/// # async fn open() -> deploykit_core::Result<()> {
/// use std::sync::Arc;
/// use deploykit_core::Deployer;
/// use deploykit_k8s::{K8s, K8sConfig};
/// let config = K8sConfig::from_url("k8s://staging/shop?registry=registry.example")?;
/// let deployer = Deployer::new(Arc::new(K8s::open(config).await?));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct K8s {
    cluster: Cluster,
    identity: String,
    config: K8sConfig,
    capabilities: Capabilities,
    state: State,
    secrets: Secrets,
    images: Images,
    views: Views,
}

const FEATURES: &[Feature] = &[
    Feature::Images,
    Feature::Resources,
    Feature::Users,
    Feature::Placement,
    Feature::ServiceAccounts,
    Feature::Udp,
    Feature::Routes,
    Feature::Headless,
    Feature::Global,
    Feature::Autoscale,
    Feature::Schedules,
    Feature::MountTargets,
    Feature::PerReplicaVolumes,
    Feature::ExecProbes,
    Feature::GrpcProbes,
    Feature::BlueGreen,
    Feature::Canary,
    Feature::Raw,
];

/// What the backend can do with that config.
pub fn capabilities(config: &K8sConfig) -> Capabilities {
    let own_images = config.registry.iter().map(|_| Feature::Executables);
    let isolation = config.network_policies.then_some(Feature::Isolation);
    let features = FEATURES.iter().copied().chain(own_images).chain(isolation);
    let mut capabilities = Capabilities::new(SelfHeal::Engine, Fencing::ObjectCas, features);
    capabilities.controllers = true;
    capabilities.terminals = true;
    capabilities
}

impl K8s {
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Connects to a cluster. Nothing is asked of it yet.
    ///
    /// # Errors
    /// `Invalid` where there is no kubeconfig, or no such context in it.
    pub async fn open(config: K8sConfig) -> Result<Self> {
        let operation = "open the cluster";
        let options = KubeConfigOptions { context: config.context.clone(), ..Default::default() };
        let unusable = |source: Box<dyn std::error::Error + Send + Sync>| {
            let message = "the kubeconfig cannot be used; see `kubectl config get-contexts`";
            error(ErrorKind::Invalid, operation, message).because(source)
        };
        let mut found = match (&config.kubeconfig, &config.context) {
            (Some(file), _) => {
                let file = Kubeconfig::read_from(file).map_err(|e| unusable(e.into()))?;
                let read = Config::from_custom_kubeconfig(file, &options).await;
                read.map_err(|e| unusable(e.into()))?
            }
            (None, Some(_)) => {
                Config::from_kubeconfig(&options).await.map_err(|e| unusable(e.into()))?
            }
            (None, None) => Config::infer().await.map_err(|e| unusable(e.into()))?,
        };
        // What may be made again is for each call to say.
        found.default_retry = false;
        found.connect_timeout = Some(CONNECTING);
        found.read_timeout = None;
        let namespace = config.namespace.clone().unwrap_or_else(|| found.default_namespace.clone());
        let identity =
            format!("{}/{namespace}", found.cluster_url.to_string().trim_end_matches('/'));
        let clients = connect(found).map_err(client(operation))?;
        Ok(Self::with_clients(config, clients, namespace, identity))
    }

    /// With a builder of images from Dockerfiles, which it pushes to the config's
    /// [repository](K8sConfig::repository); without one, they are refused in the plan.
    #[must_use]
    pub fn with_builder(mut self, builder: Arc<dyn ImageBuilder>) -> Self {
        self.capabilities.features.insert(Feature::Dockerfiles);
        self.images.builder = Some(builder);
        self
    }

    /// Ends an instance at once, without its grace period: its pod is deleted, and another takes its
    /// place.
    ///
    /// # Errors
    /// `NotFound` where the app has no such instance.
    pub async fn kill(&self, app: &AppName, instance: &str) -> Result<()> {
        let operation = "end an instance";
        let pod = self.cluster.get::<Pod>(operation, instance).await?;
        let ours = |pod: &Pod| pod.labels().get(labels::APP).is_some_and(|of| *app == of.as_str());
        if !pod.as_ref().is_some_and(ours) {
            let message = format!("there is no instance {instance}");
            return Err(error(ErrorKind::NotFound, operation, message).with("app", app));
        }
        let api = self.cluster.api::<Pod>();
        let params = DeleteParams::default().grace_period(0);
        self.cluster.again(operation, || api.delete(instance, &params)).await.map(drop)
    }

    fn with_clients(
        config: K8sConfig,
        clients: (Client, Client),
        namespace: String,
        identity: String,
    ) -> Self {
        let cluster = Cluster::new(clients, namespace, config.force);
        Self {
            identity,
            capabilities: capabilities(&config),
            state: State(cluster.clone()),
            secrets: Secrets(cluster.clone()),
            images: Images::new(config.clone()),
            views: Views::default(),
            config,
            cluster,
        }
    }
}

#[async_trait]
impl Orchestrator for K8s {
    fn name(&self) -> &str {
        BACKEND
    }

    fn identity(&self) -> String {
        self.identity.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn refuses(&self, app: &App) -> Vec<Problem> {
        refuse::problems(app)
    }

    fn state(&self) -> &dyn StateStore {
        &self.state
    }

    fn secrets(&self) -> &dyn SecretStore {
        &self.secrets
    }

    fn images(&self) -> &dyn ImageBuilder {
        &self.images
    }

    async fn observe(&self, app: &AppName) -> Result<Observation> {
        observe::observe(&self.cluster, app).await
    }

    async fn drift(&self, target: &ResolvedApp, services: &[ServiceName]) -> Result<Drift> {
        drift::drift(&self.cluster, &self.config, &self.images, target, services).await
    }

    async fn execute(&self, step: &Step, context: &StepContext) -> Result<()> {
        let work = |name| Work {
            cluster: &self.cluster,
            config: &self.config,
            images: &self.images,
            view: self.views.of(&self.cluster, &context.fence),
            context,
            name,
        };
        match &step.goal {
            Goal::Service(name) => execute::service::run(&work(name)).await,
            Goal::Job { job, run } => execute::job::run(&work(job), run).await,
            Goal::Schedule(job) => execute::schedule::run(&work(job)).await,
            Goal::RemoveService(name) => execute::remove::service(&work(name)).await,
            Goal::Volume(name) => {
                execute::volume::ensure(&self.cluster, &self.config, context, name).await
            }
            Goal::RemoveVolume(name) => execute::volume::remove(&self.cluster, context, name).await,
            Goal::Raw => execute::raw::apply(&self.cluster, &self.state, context).await,
            Goal::Collect => {
                execute::raw::prune(&self.cluster, &self.state, context).await?;
                execute::collect::run(&self.cluster, context).await
            }
            other => {
                let message = format!("`{other}` is not for this backend");
                Err(error(ErrorKind::Unsupported, "execute a step", message))
            }
        }
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        watch::watch(&self.cluster, app).await
    }

    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        logs::logs(&self.cluster, app, query).await
    }

    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        exec::exec(&self.cluster, app, instance, request).await
    }
}
