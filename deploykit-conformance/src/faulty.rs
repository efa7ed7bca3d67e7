//! A runtime with faults.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::{AppName, Network, NetworkName, ServiceName, Volume, VolumeName};
use deploykit_core::{
    Capabilities, EndpointSpec, ExecOutput, ExecRequest, Fence, ImageBuilder, InstanceSpec,
    LogLine, LogQuery, Observation, ResolvedApp, Result, Runtime, SecretStore, StateStore,
};
use futures_util::stream::BoxStream;

use crate::faults::Faults;

/// A [`Runtime`] at whose mutating calls [`Faults`] strike.
#[derive(Clone, Debug)]
pub struct Faulty<R> {
    inner: R,
    faults: Faults,
}

impl<R: Runtime> Faulty<R> {
    /// The runtime with these faults.
    pub fn new(inner: R, faults: Faults) -> Self {
        Self { inner, faults }
    }
}

#[async_trait]
impl<R: Runtime> Runtime for Faulty<R> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn state(&self) -> &dyn StateStore {
        self.inner.state()
    }

    fn secrets(&self) -> &dyn SecretStore {
        self.inner.secrets()
    }

    fn images(&self) -> &dyn ImageBuilder {
        self.inner.images()
    }

    async fn inspect(&self, app: &AppName) -> Result<Observation> {
        self.inner.inspect(app).await
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        self.inner.watch(app).await
    }

    async fn ensure_network(
        &self,
        fence: &Fence,
        name: &NetworkName,
        network: &Network,
    ) -> Result<()> {
        let call = self.inner.ensure_network(fence, name, network);
        self.faults.around("ensure_network", call).await
    }

    async fn remove_network(&self, fence: &Fence, name: &NetworkName) -> Result<()> {
        self.faults.around("remove_network", self.inner.remove_network(fence, name)).await
    }

    async fn ensure_volume(&self, fence: &Fence, name: &VolumeName, volume: &Volume) -> Result<()> {
        self.faults.around("ensure_volume", self.inner.ensure_volume(fence, name, volume)).await
    }

    async fn remove_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()> {
        self.faults.around("remove_volume", self.inner.remove_volume(fence, name)).await
    }

    async fn ensure_endpoint(&self, fence: &Fence, endpoint: &EndpointSpec) -> Result<()> {
        self.faults.around("ensure_endpoint", self.inner.ensure_endpoint(fence, endpoint)).await
    }

    async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        self.faults.around("remove_endpoint", self.inner.remove_endpoint(fence, service)).await
    }

    async fn route(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instances: &[String],
    ) -> Result<()> {
        self.faults.around("route", self.inner.route(fence, service, instances)).await
    }

    async fn drain(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        let call = self.inner.drain(fence, service, instance, deadline);
        self.faults.around("drain", call).await
    }

    async fn start(&self, fence: &Fence, spec: &InstanceSpec) -> Result<()> {
        self.faults.around("start", self.inner.start(fence, spec)).await
    }

    async fn stop(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.faults.around("stop", self.inner.stop(fence, instance)).await
    }

    async fn remove(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.faults.around("remove", self.inner.remove(fence, instance)).await
    }

    async fn collect(&self, fence: &Fence, kept: &[ResolvedApp]) -> Result<()> {
        self.faults.around("collect", self.inner.collect(fence, kept)).await
    }

    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.inner.logs(app, query).await
    }

    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        self.inner.exec(app, instance, request).await
    }
}
