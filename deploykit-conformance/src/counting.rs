//! A backend whose mutating calls are counted, and struck by faults.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::{App, AppName, SecretName, ServiceName};
use deploykit_core::{
    Capabilities, Drift, Entry, ExecOutput, ExecRequest, Expected, Fence, ImageBuilder, Lease,
    LogLine, LogQuery, Observation, Orchestrator, Problem, ResolvedApp, Result, SecretStore,
    SecretValue, StateStore, Step, StepContext,
};
use futures_util::stream::BoxStream;

use crate::faults::Faults;

/// How many mutating calls a backend was asked for: steps, writes of state, writes of secrets, and
/// takings of the lock. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<AtomicU64>);

impl Calls {
    /// How many there were so far.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A backend with its stores, each call of which that changes something is counted.
pub(crate) struct Counting {
    inner: Arc<dyn Orchestrator>,
    state: State,
    secrets: Secrets,
    meter: Meter,
}

#[derive(Clone)]
struct Meter {
    calls: Calls,
    faults: Faults,
}

impl Meter {
    async fn around<T>(
        &self,
        name: &str,
        call: impl Future<Output = Result<T>> + Send,
    ) -> Result<T> {
        self.calls.0.fetch_add(1, Ordering::SeqCst);
        self.faults.around(name, call).await
    }
}

struct State {
    inner: Arc<dyn Orchestrator>,
    meter: Meter,
}

struct Secrets {
    inner: Arc<dyn Orchestrator>,
    meter: Meter,
}

impl Counting {
    pub(crate) fn new(inner: Arc<dyn Orchestrator>, calls: Calls, faults: Faults) -> Self {
        let meter = Meter { calls, faults };
        Self {
            state: State { inner: Arc::clone(&inner), meter: meter.clone() },
            secrets: Secrets { inner: Arc::clone(&inner), meter: meter.clone() },
            inner,
            meter,
        }
    }
}

#[async_trait]
impl Orchestrator for Counting {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn refuses(&self, app: &App) -> Vec<Problem> {
        self.inner.refuses(app)
    }

    fn state(&self) -> &dyn StateStore {
        &self.state
    }

    fn secrets(&self) -> &dyn SecretStore {
        &self.secrets
    }

    fn images(&self) -> &dyn ImageBuilder {
        self.inner.images()
    }

    async fn observe(&self, app: &AppName) -> Result<Observation> {
        self.inner.observe(app).await
    }

    async fn drift(&self, target: &ResolvedApp, services: &[ServiceName]) -> Result<Drift> {
        self.inner.drift(target, services).await
    }

    async fn execute(&self, step: &Step, context: &StepContext) -> Result<()> {
        self.meter.around("execute", self.inner.execute(step, context)).await
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        self.inner.watch(app).await
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

#[async_trait]
impl StateStore for State {
    async fn apps(&self) -> Result<Vec<AppName>> {
        self.inner.state().apps().await
    }

    async fn get(&self, app: &AppName, key: &str) -> Result<Option<Entry>> {
        self.inner.state().get(app, key).await
    }

    async fn keys(&self, app: &AppName, prefix: &str) -> Result<Vec<String>> {
        self.inner.state().keys(app, prefix).await
    }

    async fn put(&self, fence: &Fence, key: &str, value: &str, expected: Expected) -> Result<u64> {
        let call = self.inner.state().put(fence, key, value, expected);
        self.meter.around("StateStore::put", call).await
    }

    async fn delete(&self, fence: &Fence, key: &str, version: u64) -> Result<()> {
        let call = self.inner.state().delete(fence, key, version);
        self.meter.around("StateStore::delete", call).await
    }

    async fn acquire(&self, app: &AppName, holder: &str, ttl: Duration) -> Result<Lease> {
        let call = self.inner.state().acquire(app, holder, ttl);
        self.meter.around("StateStore::acquire", call).await
    }

    async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        // Not counted: when it comes is a matter of time, and a fault's place must be the same
        // in each run.
        self.inner.state().renew(lease, ttl).await
    }

    async fn release(&self, lease: &Lease) -> Result<()> {
        self.meter.around("StateStore::release", self.inner.state().release(lease)).await
    }
}

#[async_trait]
impl SecretStore for Secrets {
    async fn put(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        self.meter.around("SecretStore::put", self.inner.secrets().put(app, name, value)).await
    }

    async fn ensure(&self, app: &AppName, name: &SecretName, value: SecretValue) -> Result<u64> {
        let call = self.inner.secrets().ensure(app, name, value);
        self.meter.around("SecretStore::ensure", call).await
    }

    async fn get(&self, app: &AppName, name: &SecretName, version: u64) -> Result<SecretValue> {
        self.inner.secrets().get(app, name, version).await
    }

    async fn versions(&self, app: &AppName, name: &SecretName) -> Result<Vec<u64>> {
        self.inner.secrets().versions(app, name).await
    }

    async fn list(&self, app: &AppName) -> Result<Vec<(SecretName, u64)>> {
        self.inner.secrets().list(app).await
    }

    async fn delete(&self, app: &AppName, name: &SecretName, versions: &[u64]) -> Result<()> {
        let call = self.inner.secrets().delete(app, name, versions);
        self.meter.around("SecretStore::delete", call).await
    }
}
