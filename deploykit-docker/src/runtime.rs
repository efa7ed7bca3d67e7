//! The backend as core sees it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use deploykit_agent::control::Client;
use deploykit_core::model::{
    AppName, Network, NetworkName, ServiceName, Volume, VolumeName, VolumeScope,
};
use deploykit_core::{
    Capabilities, EndpointSpec, ExecOutput, ExecRequest, Feature, Fence, Fencing, ImageBuilder,
    InstanceSpec, LogLine, LogQuery, Observation, Reconciler, ResolvedApp, Result, Runtime,
    SecretStore, SelfHeal, StateStore,
};
use deploykit_oci::Digest;
use futures_util::stream::BoxStream;

use crate::agent::{self, Program};
use crate::config::DockerConfig;
use crate::endpoints::is_unsettled;
use crate::engine::Engine;
use crate::error::BACKEND;
use crate::images::Cache;
use crate::keeper::Keepers;
use crate::{exec, images, logs, names, networks, watch};

/// What it honours beyond what every backend does. `replicas: global` means one: an engine is one
/// node.
const FEATURES: [Feature; 15] = [
    Feature::Executables,
    Feature::Images,
    Feature::Dockerfiles,
    Feature::Resources,
    Feature::Users,
    Feature::HostPorts,
    Feature::Global,
    Feature::MountTargets,
    Feature::PerReplicaVolumes,
    Feature::RestartPolicies,
    Feature::ExecProbes,
    Feature::GrpcProbes,
    Feature::BlueGreen,
    Feature::Canary,
    Feature::Isolation,
];

/// How often it is looked again while routes are being changed.
const LOOKS: u32 = 5;

/// What this backend declares, the same on every engine that it supports.
pub fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::new(SelfHeal::Engine, Fencing::Detect, FEATURES);
    capabilities.terminals = true;
    capabilities
}

/// A Docker engine as a backend.
#[derive(Clone)]
pub struct Docker {
    pub(crate) engine: Engine,
    pub(crate) cache: Cache,
    pub(crate) program: Program,
    pub(crate) publish: String,
    pub(crate) buildkit: bool,
    pub(crate) keepers: Keepers,
    /// The manifests of the images that were loaded, by their names in the engine.
    pub(crate) given: Arc<Mutex<HashMap<String, Digest>>>,
    pub(crate) proxies: Arc<Mutex<HashMap<String, Client>>>,
    capabilities: Arc<Capabilities>,
}

impl std::fmt::Debug for Docker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Docker").field("engine", &self.engine.id).finish_non_exhaustive()
    }
}

impl Docker {
    /// Connects to the engine of `config`.
    ///
    /// Cancel-safe: nothing is left behind.
    ///
    /// # Errors
    /// `Unavailable` where no engine answers, `Unsupported` where it speaks another API,
    /// `Unauthorized` where this user may not speak to it.
    pub async fn open(config: DockerConfig) -> Result<Self> {
        let engine = Engine::open(&config.host).await?;
        let program = Program::new(config.agent, config.move_agents);
        let keepers = Keepers::new(engine.clone(), program.clone(), config.keys);
        Ok(Self {
            engine,
            cache: Cache::new(),
            program,
            publish: config.publish,
            buildkit: config.buildkit,
            keepers,
            given: Arc::default(),
            proxies: Arc::default(),
            capabilities: Arc::new(capabilities()),
        })
    }

    /// The image that the agents of an app shall run, where they are to be moved.
    pub(crate) async fn agents_move_to(&self, app: &AppName) -> Result<Option<String>> {
        if !self.program.moves {
            return Ok(None);
        }
        agent::image(&self.engine, app, &self.program).await.map(Some)
    }
}

/// Opens a Docker engine for [`Deployer::new`](deploykit_core::Deployer::new); see
/// [`Docker::open`].
///
/// # Errors
/// Those of [`Docker::open`].
pub async fn open(config: DockerConfig) -> Result<Reconciler<Docker>> {
    Docker::open(config).await.map(Reconciler::new)
}

#[async_trait]
impl Runtime for Docker {
    fn name(&self) -> &str {
        BACKEND
    }

    fn identity(&self) -> String {
        self.engine.id.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn state(&self) -> &dyn StateStore {
        &self.keepers
    }

    fn secrets(&self) -> &dyn SecretStore {
        &self.keepers
    }

    fn images(&self) -> &dyn ImageBuilder {
        self
    }

    async fn inspect(&self, app: &AppName) -> Result<Observation> {
        let mut known = self.keepers.report(app).await?;
        let mut routed = self.routed(app, &known).await;
        for _ in 0..LOOKS {
            if !is_unsettled(&known) {
                break;
            }
            // What a proxy says is newer than what the keeper has said: the two must not tell of
            // different moments.
            let again = self.keepers.report(app).await?;
            if again == known {
                break;
            }
            routed = self.routed(app, &again).await;
            known = again;
        }
        let agents = self.agents_move_to(app).await?;
        self.engine.observe(app, &known.targets, &routed, agents.as_deref()).await
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        Ok(watch::changes(self.engine.clone(), self.keepers.clone(), app.clone()))
    }

    async fn ensure_network(&self, fence: &Fence, name: &NetworkName, _: &Network) -> Result<()> {
        let full = names::named_network(&fence.app, name);
        self.engine.ensure_network(&fence.app, &full, &[(names::NAME, name.as_str())]).await
    }

    async fn remove_network(&self, fence: &Fence, name: &NetworkName) -> Result<()> {
        self.engine.remove_network(&fence.app, &names::named_network(&fence.app, name)).await
    }

    async fn ensure_volume(&self, fence: &Fence, name: &VolumeName, volume: &Volume) -> Result<()> {
        let slot = (volume.scope == VolumeScope::PerReplica).then_some(0);
        self.engine.ensure_volume(&fence.app, name, slot).await.map(drop)
    }

    async fn remove_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()> {
        self.engine.remove_volume(&fence.app, name).await
    }

    async fn ensure_endpoint(&self, fence: &Fence, endpoint: &EndpointSpec) -> Result<()> {
        self.make_endpoint(fence, endpoint).await
    }

    async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        self.drop_endpoint(fence, service).await
    }

    async fn route(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instances: &[String],
    ) -> Result<()> {
        self.set_route(fence, service, instances).await
    }

    async fn drain(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        self.drain_instance(fence, service, instance, deadline).await
    }

    async fn start(&self, fence: &Fence, spec: &InstanceSpec) -> Result<()> {
        self.start_instance(fence, spec).await
    }

    async fn stop(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.stop_instance(fence, instance).await
    }

    async fn remove(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.remove_instance(fence, instance).await
    }

    async fn collect(&self, fence: &Fence, kept: &[ResolvedApp]) -> Result<()> {
        tokio::try_join!(
            self.collect_secrets(&fence.app),
            networks::collect(&self.engine, &fence.app),
            images::collect(&self.engine, &fence.app, kept),
        )?;
        // What held secrets no more has run them.
        if let Some(agents) = self.agents_move_to(&fence.app).await? {
            images::collect_agents(&self.engine, &fence.app, Some(&agents)).await?;
        }
        Ok(())
    }

    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        logs::read(self.engine.clone(), app.clone(), query.clone()).await
    }

    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        exec::run(self.engine.clone(), app, instance, request).await
    }
}
