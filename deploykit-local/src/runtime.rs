//! The backend as core sees it: a client of the supervisor.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::{
    AppName, ImageSpec, Network, NetworkName, ResolvedImage, ServiceName, Volume, VolumeName,
};
use deploykit_core::{
    Capabilities, EndpointSpec, Error, ErrorKind, EventSender, ExecOutput, ExecRequest, Feature,
    Fence, Fencing, ImageBuilder, InstanceSpec, LogLine, LogQuery, Observation, Reconciler,
    ResolvedApp, Result, Runtime, SecretStore, SelfHeal, StateStore,
};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};

use crate::client::{Client, Starter, WatchStream};
use crate::config::{Lifetime, LocalConfig};
use crate::error::BACKEND;
use crate::executables::Executables;
use crate::folder::Folder;
use crate::program::Program;
use crate::protocol::Request;
use crate::{exec, output, reexec};

/// What it honours beyond what every backend does. `replicas: global` means one: there is one node.
const FEATURES: [Feature; 9] = [
    Feature::Executables,
    Feature::HostPorts,
    Feature::Global,
    Feature::PerReplicaVolumes,
    Feature::RestartPolicies,
    Feature::ExecProbes,
    Feature::GrpcProbes,
    Feature::BlueGreen,
    Feature::Canary,
];

/// The local backend: a client of its folder's supervisor.
#[derive(Debug)]
pub struct Local {
    pub(crate) client: Arc<Client>,
    executables: Executables,
    capabilities: Capabilities,
    program: Option<Program>,
}

impl Local {
    /// Opens the folder of `config`. With [`Lifetime::Detached`] its supervisor is started by the
    /// first call that needs it.
    ///
    /// Cancel-safe: dropping the future leaves an empty folder at most.
    ///
    /// # Errors
    /// `Unsupported` for [`Lifetime::Detached`] where [`init`](crate::init) was not called;
    /// `Unauthorized` or `AlreadyExists` where the folder is somebody else's; `Conflict` for
    /// [`Lifetime::Program`] where another supervisor serves the folder; `Corrupt` where its state
    /// cannot be read.
    pub async fn open(config: LocalConfig) -> Result<Self> {
        config.check()?;
        if config.lifetime == Lifetime::Detached {
            reexec::check_init()?;
        }
        let folder = Folder::open(&config.folder)?;
        let mut capabilities =
            Capabilities::new(SelfHeal::WhileHosted, Fencing::Enforced, FEATURES);
        capabilities.survives_deployer = config.lifetime == Lifetime::Detached;
        capabilities.terminals = reexec::is_initialised();
        let (starter, program) = match config.lifetime {
            Lifetime::Detached => (Starter::Client { keys: config.keys }, None),
            Lifetime::Program => {
                (Starter::Program, Some(Program::start(folder.clone(), config.keys).await?))
            }
        };
        let executables = Executables::new(folder.executables());
        Ok(Self {
            client: Arc::new(Client::new(folder, starter)),
            executables,
            capabilities,
            program,
        })
    }

    /// Ends what [`Lifetime::Program`] hosts: each instance by its signal and grace period. With
    /// [`Lifetime::Detached`], only this client's connection ends. Dropping does the same, but
    /// blocks its thread meanwhile.
    pub async fn close(self) {
        if let Some(program) = self.program {
            program.close().await;
        }
    }
}

/// Opens the local backend for [`Deployer::new`](deploykit_core::Deployer::new); see
/// [`Local::open`].
///
/// # Errors
/// Those of [`Local::open`].
pub async fn open(config: LocalConfig) -> Result<Reconciler<Local>> {
    Local::open(config).await.map(Reconciler::new)
}

#[async_trait]
impl ImageBuilder for Local {
    async fn build(
        &self,
        _: &AppName,
        image: &ImageSpec,
        _: &EventSender,
    ) -> Result<ResolvedImage> {
        let ImageSpec::Binary(path) = image else {
            let message = format!(
                "`{image}` is no executable of this machine; images of registries need another backend"
            );
            return Err(
                Error::new(ErrorKind::Unsupported, "prepare an executable", message).on(BACKEND)
            );
        };
        let (store, source) = (self.executables.clone(), path.clone());
        let digest = tokio::task::spawn_blocking(move || store.put(&source));
        let digest = digest.await.map_err(|e| {
            Error::new(ErrorKind::Failed, "prepare an executable", e.to_string()).on(BACKEND)
        })??;
        Ok(ResolvedImage { source: path.display().to_string(), digest })
    }
}

#[async_trait]
impl Runtime for Local {
    fn name(&self) -> &str {
        BACKEND
    }

    fn identity(&self) -> String {
        self.client.folder().path().display().to_string()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn state(&self) -> &dyn StateStore {
        self
    }

    fn secrets(&self) -> &dyn SecretStore {
        self
    }

    fn images(&self) -> &dyn ImageBuilder {
        self
    }

    async fn inspect(&self, app: &AppName) -> Result<Observation> {
        self.client.inspect(app).await
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        let (client, app) = (Arc::clone(&self.client), app.clone());
        let changes = client.watch(&app).await?;
        let next = move |changes: Option<WatchStream>| {
            let (client, app) = (Arc::clone(&client), app.clone());
            async move {
                let mut changes = changes?;
                if changes.changed().await.is_ok() {
                    return Some((Ok(()), Some(changes)));
                }
                // The supervisor ended. Whatever changed meanwhile is one change.
                match client.watch(&app).await {
                    Ok(changes) => Some((Ok(()), Some(changes))),
                    Err(e) => Some((Err(e), None)),
                }
            }
        };
        Ok(stream::unfold(Some(changes), next).boxed())
    }

    async fn ensure_network(&self, _: &Fence, name: &NetworkName, _: &Network) -> Result<()> {
        let message = format!(
            "the network {name} cannot be made: processes of one machine share its network"
        );
        Err(Error::new(ErrorKind::Unsupported, "make a network", message).on(BACKEND))
    }

    async fn remove_network(&self, _: &Fence, _: &NetworkName) -> Result<()> {
        Ok(())
    }

    async fn ensure_volume(&self, fence: &Fence, name: &VolumeName, _: &Volume) -> Result<()> {
        self.client.call(Request::EnsureVolume { fence: fence.clone(), name: name.clone() }).await
    }

    async fn remove_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()> {
        self.client.call(Request::RemoveVolume { fence: fence.clone(), name: name.clone() }).await
    }

    async fn ensure_endpoint(&self, fence: &Fence, endpoint: &EndpointSpec) -> Result<()> {
        self.client
            .call(Request::EnsureEndpoint { fence: fence.clone(), endpoint: endpoint.clone() })
            .await
    }

    async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        self.client
            .call(Request::RemoveEndpoint { fence: fence.clone(), service: service.clone() })
            .await
    }

    async fn route(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instances: &[String],
    ) -> Result<()> {
        let instances = instances.iter().cloned().collect();
        self.client
            .call(Request::Route { fence: fence.clone(), service: service.clone(), instances })
            .await
    }

    async fn drain(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        let (fence, service, instance) = (fence.clone(), service.clone(), instance.to_owned());
        self.client.call(Request::Drain { fence, service, instance, deadline }).await
    }

    async fn start(&self, fence: &Fence, spec: &InstanceSpec) -> Result<()> {
        self.client
            .call(Request::Start { fence: fence.clone(), spec: Box::new(spec.clone()) })
            .await
    }

    async fn stop(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.client
            .call(Request::Stop { fence: fence.clone(), instance: instance.to_owned() })
            .await
    }

    async fn remove(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.client
            .call(Request::Remove { fence: fence.clone(), instance: instance.to_owned() })
            .await
    }

    async fn collect(&self, fence: &Fence, kept: &[ResolvedApp]) -> Result<()> {
        let digests = kept
            .iter()
            .flat_map(|app| app.images.values())
            .map(|image| image.digest.clone())
            .collect();
        self.client.call(Request::Collect { fence: fence.clone(), digests }).await
    }

    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        output::read(Arc::clone(&self.client), app.clone(), query.clone()).await
    }

    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        exec::run(&self.client, app, instance, request).await
    }
}
