//! The host as a [`Runtime`].

use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::time::{Instant, timeout_at};

use super::{Host, NAME, exec, life, lock, not_found};
use crate::capability::Capabilities;
use crate::diagnosis::{Diagnosis, Reason};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    Address, AppName, Network, NetworkName, Publish, ServiceName, Volume, VolumeName,
};
use crate::observation::{InstanceState, Observation};
use crate::orchestrator::{ExecOutput, ExecRequest, ImageBuilder, LogLine, LogQuery};
use crate::resolved::{EndpointSpec, ResolvedApp};
use crate::runtime::{InstanceSpec, Runtime};
use crate::secret::SecretStore;
use crate::state::{Fence, StateStore};

impl Host {
    /// The app and service that have a port of the host.
    fn owner_of(&self, port: u16) -> Option<(AppName, ServiceName)> {
        let apps = lock(&self.0.apps);
        apps.iter().find_map(|(app, known)| {
            let owner = known.endpoints.values().find(|(endpoint, _)| {
                endpoint.ports.iter().any(|p| p.publish == Publish::HostPort(port))
            })?;
            Some((app.clone(), owner.0.service.clone()))
        })
    }

    /// Waits for a change of anything, or until the deadline; returns whether there was one.
    async fn until<T>(
        &self,
        app: &AppName,
        deadline: Option<Instant>,
        mut check: impl FnMut(&super::App) -> Option<T>,
    ) -> Option<T> {
        let mut changes = self.0.changes.subscribe();
        loop {
            if let Some(found) = self.read(app, &mut check) {
                return Some(found);
            }
            let changed = match deadline {
                Some(deadline) => timeout_at(deadline, changes.changed()).await.ok(),
                None => Some(changes.changed().await),
            };
            changed?.ok()?;
        }
    }
}

#[async_trait]
impl Runtime for Host {
    fn name(&self) -> &str {
        NAME
    }

    fn identity(&self) -> String {
        format!("{:p}", self.0)
    }

    fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    fn state(&self) -> &dyn StateStore {
        &self.0.state
    }

    fn secrets(&self) -> &dyn SecretStore {
        &self.0.secrets
    }

    fn images(&self) -> &dyn ImageBuilder {
        &self.0.images
    }

    async fn inspect(&self, app: &AppName) -> Result<Observation> {
        Ok(self.read(app, super::App::observe))
    }

    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>> {
        let (changes, seen) = (self.0.changes.subscribe(), self.inspect(app).await?);
        let (host, app) = (self.clone(), app.clone());
        Ok(stream::unfold(
            (host, app, changes, seen),
            |(host, app, mut changes, seen)| async move {
                loop {
                    changes.changed().await.ok()?;
                    let now = host.read(&app, super::App::observe);
                    if now != seen {
                        return Some((Ok(()), (host, app, changes, now)));
                    }
                }
            },
        )
        .boxed())
    }

    async fn ensure_network(&self, fence: &Fence, name: &NetworkName, _: &Network) -> Result<()> {
        self.mutate(fence, |app| {
            app.networks.insert(name.clone());
            Ok(())
        })
    }

    async fn remove_network(&self, fence: &Fence, name: &NetworkName) -> Result<()> {
        self.mutate(fence, |app| {
            app.networks.remove(name);
            Ok(())
        })
    }

    async fn ensure_volume(&self, fence: &Fence, name: &VolumeName, _: &Volume) -> Result<()> {
        self.mutate(fence, |app| {
            app.volumes.entry(name.clone()).or_default();
            Ok(())
        })
    }

    async fn remove_volume(&self, fence: &Fence, name: &VolumeName) -> Result<()> {
        self.mutate(fence, |app| {
            app.volumes.remove(name);
            Ok(())
        })
    }

    async fn ensure_endpoint(&self, fence: &Fence, endpoint: &EndpointSpec) -> Result<()> {
        let ours = (fence.app.clone(), endpoint.service.clone());
        for port in &endpoint.ports {
            let Publish::HostPort(number) = port.publish else { continue };
            let Some(other) = self.owner_of(number).filter(|owner| *owner != ours) else {
                continue;
            };
            let message = format!("port {number} belongs to {}/{}", other.0, other.1);
            let reason = Reason::PortTaken { port: number, message: message.clone() };
            let service = endpoint.service.clone();
            let diagnosis = Diagnosis { service, instance: None, reason };
            let error = Error::new(ErrorKind::AlreadyExists, "make an endpoint", message);
            return Err(error.on(NAME).with_diagnoses(vec![diagnosis]));
        }
        self.mutate(fence, |app| {
            let entry = app.endpoints.entry(endpoint.service.clone());
            let (spec, _) = entry.or_insert_with(|| (endpoint.clone(), Default::default()));
            *spec = endpoint.clone();
            Ok(())
        })
    }

    async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        self.mutate(fence, |app| {
            app.endpoints.remove(service);
            Ok(())
        })
    }

    async fn route(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instances: &[String],
    ) -> Result<()> {
        self.mutate(fence, |app| {
            let endpoint = app.endpoints.get_mut(service).ok_or_else(|| {
                let message = "the service has no endpoint";
                Error::new(ErrorKind::NotFound, "route", message).on(NAME).with("service", service)
            })?;
            endpoint.1 = instances.iter().cloned().collect();
            Ok(())
        })
    }

    async fn drain(
        &self,
        fence: &Fence,
        _: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        self.0.state.fenced(fence, || ())?;
        let idle = |app: &super::App| {
            app.instances.get(instance).is_none_or(|sim| sim.in_flight == 0).then_some(())
        };
        let deadline = Instant::now() + deadline;
        Ok(self.until(&fence.app, Some(deadline), idle).await.is_some())
    }

    async fn start(&self, fence: &Fence, spec: &InstanceSpec) -> Result<()> {
        for (name, version) in &spec.template.secrets {
            if !self.0.secrets.versions(&fence.app, name).await?.contains(version) {
                let secret = format!("{name}@{version}");
                let message = format!("secret {secret} does not exist");
                let service = spec.service.clone();
                let reason = Reason::SecretMissing { secret };
                let diagnosis = Diagnosis { service, instance: Some(spec.id.clone()), reason };
                let error = Error::new(ErrorKind::Failed, "start an instance", message);
                return Err(error.on(NAME).with_diagnoses(vec![diagnosis]));
            }
        }
        self.mutate(fence, |app| {
            if app.instances.contains_key(&spec.id) {
                return Ok(());
            }
            let mut sim = life::start(self, &fence.app, spec);
            let address = |port: u16| Address { host: spec.id.clone(), port };
            sim.seen.addresses =
                spec.template.ports.iter().map(|port| address(port.port)).collect();
            app.instances.insert(spec.id.clone(), sim);
            Ok(())
        })
    }

    async fn stop(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.mutate(fence, |app| {
            if let Some(sim) = app.instances.get(instance) {
                sim.life.stop.notify_one();
            }
            Ok(())
        })?;
        let gone = |app: &super::App| {
            let sim = app.instances.get(instance);
            sim.is_none_or(|sim| sim.seen.exit().is_some()).then_some(())
        };
        self.until(&fence.app, None, gone).await;
        Ok(())
    }

    async fn remove(&self, fence: &Fence, instance: &str) -> Result<()> {
        self.mutate(fence, |app| {
            let Some(sim) = app.instances.get(instance) else { return Ok(()) };
            if sim.running() || sim.seen.state == InstanceState::BackOff {
                let message = "it runs; stop it first";
                let error = Error::new(ErrorKind::Conflict, "remove an instance", message);
                return Err(error.on(NAME).with("instance", instance));
            }
            app.instances.remove(instance);
            app.logs.retain(|_, line| line.instance != instance);
            Ok(())
        })
    }

    async fn collect(&self, fence: &Fence, _: &[ResolvedApp]) -> Result<()> {
        self.mutate(fence, |_| Ok(()))
    }

    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        let wanted = {
            let query = query.clone();
            move |line: &LogLine| {
                query.service.as_ref().is_none_or(|service| *service == line.service)
                    && query.instance.as_ref().is_none_or(|instance| *instance == line.instance)
            }
        };
        let (mut lines, next) = self.read(app, |app| {
            let lines: Vec<_> = app.logs.values().filter(|l| wanted(l)).cloned().collect();
            (lines, app.next_line)
        });
        if let Some(tail) = query.tail {
            let mut left = std::collections::BTreeMap::new();
            for line in lines.iter().rev() {
                *left.entry(line.instance.clone()).or_insert(0) += 1;
            }
            lines.retain(|line| {
                let left = left.entry(line.instance.clone()).or_insert(0);
                *left -= 1;
                *left < tail
            });
        }
        let past = stream::iter(lines.into_iter().map(Ok));
        if !query.follow {
            return Ok(past.boxed());
        }
        let (host, app) = (self.clone(), app.clone());
        let coming = stream::unfold((host, app, next), move |(host, app, next)| {
            let wanted = wanted.clone();
            async move {
                let found = host.until(&app, None, |app| {
                    let mut later = app.logs.range(next..);
                    later.find(|(_, line)| wanted(line)).map(|(n, line)| (*n, line.clone()))
                });
                let (number, line) = found.await?;
                Some((Ok(line), (host, app, number + 1)))
            }
        });
        Ok(past.chain(coming).boxed())
    }

    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>> {
        let outputs = self.read(app, |app| {
            let sim = app.instances.get(instance).filter(|sim| sim.running())?;
            Some(exec::run(&request, &sim.env(app), sim.seen.ready))
        });
        let outputs = outputs.ok_or_else(|| not_found("run a command", instance))?;
        Ok(stream::iter(outputs.into_iter().map(Ok)).boxed())
    }
}
