//! A backend of one's own: a shelf with so many places, each of which takes one instance.
//!
//! It stands on the host in memory, so that this page shows what a backend has to say and not how
//! processes are run. `tests/custom_backend.rs` holds it to the behaviour kit.

use std::time::Duration;

use async_trait::async_trait;
use deploykit::model::*;
use deploykit::*;
use futures_util::stream::BoxStream;

/// A host with so many places.
#[derive(Clone)]
pub(crate) struct Shelf {
    pub(crate) host: memory::Host,
    places: usize,
    capabilities: Capabilities,
}

impl Shelf {
    /// A shelf with nothing on it.
    pub(crate) fn new(places: usize) -> Self {
        // What is not declared here is refused in the plan, with no work on our side.
        let features = [Feature::Executables, Feature::BlueGreen];
        let capabilities = Capabilities::new(SelfHeal::WhileHosted, Fencing::Enforced, features);
        Self { host: memory::Host::new(), places, capabilities }
    }

    /// Says why an instance cannot be placed, in the words that every backend uses.
    async fn find_place(&self, app: &AppName, spec: &InstanceSpec) -> Result<()> {
        let seen = self.host.inspect(app).await?;
        let taken = seen.instances.iter().filter(|i| i.exit().is_none() && i.id != spec.id).count();
        if taken < self.places {
            return Ok(());
        }
        let message = format!("all {} places of the shelf are taken", self.places);
        let diagnosis = Diagnosis {
            service: spec.service.clone(),
            instance: Some(spec.id.clone()),
            reason: Reason::Unschedulable { message: message.clone() },
        };
        let error = Error::new(ErrorKind::Failed, "place an instance", message).on(self.name());
        Err(error.with_diagnoses(vec![diagnosis]))
    }
}

#[async_trait]
impl Runtime for Shelf {
    fn name(&self) -> &str {
        "shelf"
    }

    fn identity(&self) -> String {
        format!("shelf of {} on {}", self.places, self.host.identity())
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn state(&self) -> &dyn StateStore {
        self.host.state()
    }

    fn secrets(&self) -> &dyn SecretStore {
        self.host.secrets()
    }

    fn images(&self) -> &dyn ImageBuilder {
        self.host.images()
    }

    async fn inspect(&self, app: &AppName) -> Result<Observation> {
        self.host.inspect(app).await
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        self.host.watch(app).await
    }

    async fn ensure_network(&self, fence: &Fence, name: &NetworkName, n: &Network) -> Result<()> {
        self.host.ensure_network(fence, name, n).await
    }

    async fn remove_network(&self, fence: &Fence, name: &NetworkName) -> Result<()> {
        self.host.remove_network(fence, name).await
    }

    async fn ensure_volume(&self, fence: &Fence, name: &VolumeName, v: &Volume) -> Result<()> {
        self.host.ensure_volume(fence, name, v).await
    }

    async fn remove_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()> {
        self.host.remove_volume(fence, name).await
    }

    async fn ensure_endpoint(&self, fence: &Fence, endpoint: &EndpointSpec) -> Result<()> {
        self.host.ensure_endpoint(fence, endpoint).await
    }

    async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        self.host.remove_endpoint(fence, service).await
    }

    async fn route(&self, fence: &Fence, service: &ServiceName, ids: &[String]) -> Result<()> {
        self.host.route(fence, service, ids).await
    }

    async fn drain(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        self.host.drain(fence, service, instance, deadline).await
    }

    async fn start(&self, fence: &Fence, spec: &InstanceSpec) -> Result<()> {
        self.find_place(&fence.app, spec).await?;
        self.host.start(fence, spec).await
    }

    async fn stop(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.host.stop(fence, instance).await
    }

    async fn remove(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.host.remove(fence, instance).await
    }

    async fn collect(&self, fence: &Fence, kept: &[ResolvedApp]) -> Result<()> {
        self.host.collect(fence, kept).await
    }

    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        self.host.logs(app, query).await
    }

    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        self.host.exec(app, instance, request).await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let deployer = Deployer::new(std::sync::Arc::new(Reconciler::new(Shelf::new(4))));
    for replicas in [3, 6] {
        let web = Service::build("web", ImageSpec::binary("/usr/bin/env")).replicas(replicas);
        let app = App::build("shop").service(web).validate()?;
        let ready = deployer.prepare(app).await?;
        let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
        println!("{plan}");
        match deployer.apply(plan, &mut Silent).await {
            Ok(done) => println!("revision {:?} is there", done.revision),
            Err(error) => println!("{error}"),
        }
    }
    Ok(())
}
