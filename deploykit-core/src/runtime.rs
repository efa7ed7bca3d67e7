//! Hosts without a controller.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};

use crate::capability::Capabilities;
use crate::error::Result;
use crate::hash::SpecHash;
use crate::model::{AppName, Condition, Network, NetworkName, ServiceName, Volume, VolumeName};
use crate::observation::Observation;
use crate::orchestrator::{ExecOutput, ExecRequest, ImageBuilder, LogLine, LogQuery};
use crate::resolved::{EndpointSpec, ResolvedApp, Template};
use crate::secret::SecretStore;
use crate::state::{Fence, StateStore};

/// An instance that shall be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceSpec {
    /// Its id, chosen by the caller: unique, and made of `a-z`, `0-9` and `-`.
    pub id: String,
    /// The service or job.
    pub service: ServiceName,
    /// The revision that it is made for.
    pub revision: u64,
    /// The hash of the template.
    pub hash: SpecHash,
    /// Which of the replicas it is, from 0.
    pub slot: u32,
    /// Whether it is the run of a job: never started again, kept when it has ended.
    pub job: bool,
    /// What its service depends on, for a host that starts everything anew after a reboot.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub depends_on: BTreeMap<ServiceName, Condition>,
    /// What it is.
    pub template: Template,
}

/// A host that runs instances, without a controller of its own:
/// [`Reconciler`](crate::Reconciler) makes an [`Orchestrator`](crate::Orchestrator) of it.
///
/// It starts crashed instances again (by their restart policy), asks probes and reports `ready`;
/// which instances there are and which take requests is decided by the reconciler.
///
/// Every mutating call carries a [`Fence`], is idempotent, and is cancel-safe in this sense: a
/// dropped call may have happened or not, and can be made again. Everything that it makes is
/// labelled with app, service, revision and hash, so that `inspect` finds it after any crash; a
/// name that is taken by something unlabelled is `AlreadyExists`.
#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// See [`Orchestrator::name`](crate::Orchestrator::name).
    fn name(&self) -> &str;

    /// See [`Orchestrator::identity`](crate::Orchestrator::identity).
    fn identity(&self) -> String;

    /// See [`Orchestrator::capabilities`](crate::Orchestrator::capabilities).
    fn capabilities(&self) -> &Capabilities;

    /// Where revisions and the deploy lock are kept.
    fn state(&self) -> &dyn StateStore;

    /// Where secrets are kept.
    fn secrets(&self) -> &dyn SecretStore;

    /// What makes images ready.
    fn images(&self) -> &dyn ImageBuilder;

    /// Everything that it has of an app. Changes nothing.
    async fn inspect(&self, app: &AppName) -> Result<Observation>;

    /// See [`Orchestrator::watch`](crate::Orchestrator::watch).
    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>>;

    /// Makes a network.
    async fn ensure_network(
        &self,
        fence: &Fence,
        name: &NetworkName,
        network: &Network,
    ) -> Result<()>;

    /// Removes a network; one that is not there is no error.
    async fn remove_network(&self, fence: &Fence, name: &NetworkName) -> Result<()>;

    /// Makes a volume. One that is there is left as it is.
    async fn ensure_volume(&self, fence: &Fence, name: &VolumeName, volume: &Volume) -> Result<()>;

    /// Removes a volume and its data; one that is not there is no error.
    async fn remove_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()>;

    /// Makes or changes the endpoint of a service: from then on its address is fixed, and requests
    /// wait for an instance. Its first instances may be started meanwhile, and by then it may not
    /// be there; they are routed when both are done.
    ///
    /// # Errors
    /// `AlreadyExists` where a port is taken.
    async fn ensure_endpoint(&self, fence: &Fence, endpoint: &EndpointSpec) -> Result<()>;

    /// Removes the endpoint of a service; one that is not there is no error.
    async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()>;

    /// Sets the instances that may take new requests: of these, the ready ones do. Returns when
    /// no other instance is given a new request.
    async fn route(&self, fence: &Fence, service: &ServiceName, instances: &[String])
    -> Result<()>;

    /// Waits until an instance that is not routed has no request in flight, for `deadline` at the
    /// longest. Returns whether it has none.
    async fn drain(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool>;

    /// Starts an instance, and returns when it runs (not when it is ready). One that exists by
    /// that id is left as it is.
    ///
    /// # Errors
    /// Where it cannot run at all: with a diagnosis where there is one that fits.
    async fn start(&self, fence: &Fence, spec: &InstanceSpec) -> Result<()>;

    /// Ends an instance with its signal, and kills it when its grace period has passed. Returns
    /// when nothing of it runs. One that is not there, or has ended, is no error.
    async fn stop(&self, fence: &Fence, instance: &str) -> Result<()>;

    /// Removes an instance that does not run, and its files and logs; one that is not there is no
    /// error.
    async fn remove(&self, fence: &Fence, instance: &str) -> Result<()>;

    /// Removes what none of `kept` names: images, executables, files of secrets. Volumes and
    /// secret versions are left alone.
    async fn collect(&self, fence: &Fence, kept: &[ResolvedApp]) -> Result<()>;

    /// See [`Orchestrator::logs`](crate::Orchestrator::logs).
    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>>;

    /// See [`Orchestrator::exec`](crate::Orchestrator::exec).
    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>>;
}
