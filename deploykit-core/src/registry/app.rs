//! What a backend runs of an app, as a [`ServiceRegistry`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};

use super::{Registered, Registration, ServiceRegistry};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, ServiceName};
use crate::observation::Observation;
use crate::orchestrator::Orchestrator;

/// How long a watch that has broken rests before it is begun again.
const REST: Duration = Duration::from_secs(1);

/// The services of one app, found where its backend runs them: on any backend, with nothing
/// registered by anybody. An instance is found while it is ready and may take requests, at the
/// address of its first port; its metadata holds its `revision`.
///
/// Who asks needs what a deployer has: the supervisor's socket, the engine's, or the right to read
/// pods and services of the namespace. Addresses are those that instances are reached at by each
/// other.
///
/// ```
/// # use std::sync::Arc;
/// # use deploykit_core::{AppRegistry, Change, Deployer, Reconciler, ServiceRegistry, Silent, memory};
/// # use deploykit_core::model::{App, ImageSpec, Port, Service, ServiceName};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> deploykit_core::Result<()> {
/// # let deployer = Deployer::new(Arc::new(Reconciler::new(memory::Host::new())));
/// # let web = Service::build("web", ImageSpec::binary("/bin/web")).port(Port::http(8080)).replicas(2);
/// # let app = App::build("shop").service(web).validate()?;
/// # let name = app.name.clone();
/// # let plan = deployer.plan(Change::Deploy(Box::new(deployer.prepare(app).await?))).await?;
/// # deployer.apply(plan, &mut Silent).await?;
/// let registry = AppRegistry::new(deployer.backend().clone(), name);
/// let web = registry.instances(&ServiceName::new("web")?).await?;
/// assert_eq!(web.len(), 2);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct AppRegistry {
    backend: Arc<dyn Orchestrator>,
    app: AppName,
}

impl fmt::Debug for AppRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppRegistry").field("app", &self.app).finish_non_exhaustive()
    }
}

impl AppRegistry {
    /// The services of that app on that backend.
    pub fn new(backend: Arc<dyn Orchestrator>, app: AppName) -> Self {
        Self { backend, app }
    }
}

fn listed(seen: &Observation, service: &ServiceName) -> Vec<Registered> {
    let endpoint = seen.endpoints.get(service);
    let instances = seen.of(service).filter(|instance| {
        instance.ready && endpoint.is_none_or(|endpoint| endpoint.routed.contains(&instance.id))
    });
    let mut listed: Vec<Registered> = instances
        .filter_map(|instance| {
            let address = instance.addresses.first()?.clone();
            let mut found = Registered::new(service.clone(), &instance.id, address);
            found.metadata.insert("revision".into(), instance.revision.to_string());
            Some(found)
        })
        .collect();
    listed.sort_by(|a, b| a.id.cmp(&b.id));
    listed
}

/// A watch of a service.
struct Watching {
    registry: AppRegistry,
    service: ServiceName,
    changes: Option<BoxStream<'static, Result<()>>>,
    /// What was told last.
    told: Option<Vec<Registered>>,
}

impl Watching {
    /// The next list that differs from the last.
    async fn next(&mut self) -> Result<Vec<Registered>> {
        loop {
            if self.changes.is_none() {
                // Before the look, so that no change falls between them.
                self.changes = Some(self.registry.backend.watch(&self.registry.app).await?);
            } else if self.told.is_some()
                && let Some(changes) = &mut self.changes
                && !matches!(changes.next().await, Some(Ok(())))
            {
                self.changes = None;
                tokio::time::sleep(REST).await;
                continue;
            }
            let now = self.registry.instances(&self.service).await?;
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                return Ok(now);
            }
        }
    }
}

#[async_trait]
impl ServiceRegistry for AppRegistry {
    /// # Errors
    /// `Unsupported`: what a backend runs is found by itself.
    async fn register(&self, instance: Registered, _: Duration) -> Result<Box<dyn Registration>> {
        let message = "instances of an app are found by themselves; deploy the service, or use a \
                       registry of its own";
        Err(Error::new(ErrorKind::Unsupported, "register an instance", message)
            .on(self.backend.name())
            .with("service", instance.service))
    }

    async fn instances(&self, service: &ServiceName) -> Result<Vec<Registered>> {
        Ok(listed(&self.backend.observe(&self.app).await?, service))
    }

    /// A watch that breaks is begun again; what it could not see is told as an error meanwhile.
    async fn watch(
        &self,
        service: &ServiceName,
    ) -> Result<BoxStream<'static, Result<Vec<Registered>>>> {
        let watching = Watching {
            registry: self.clone(),
            service: service.clone(),
            changes: Some(self.backend.watch(&self.app).await?),
            told: None,
        };
        Ok(stream::unfold((watching, false), |(mut watching, failed)| async move {
            if failed {
                tokio::time::sleep(REST).await;
            }
            let list = watching.next().await;
            if list.is_err() {
                watching.changes = None;
            }
            let failed = list.is_err();
            Some((list, (watching, failed)))
        })
        .boxed())
    }
}
