//! What an engine has of an app.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum as Status, ContainerSummary,
    HealthStatusEnum,
};
use bollard::query_parameters::{
    EventsOptionsBuilder, ListContainersOptionsBuilder, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder,
};
use deploykit_agent::control::TargetReport;
use deploykit_core::model::{Address, AppName, ServiceName};
use deploykit_core::{
    Endpoint, EndpointPort, Exit, Instance, InstanceState, Observation, Reason, Result, SpecHash,
};
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;

use crate::engine::Engine;
use crate::error::Mapped as _;
use crate::names::{self, Role};

const OBSERVE: &str = "look at the app";

impl Engine {
    /// Every container of an app, running or not.
    pub(crate) async fn containers(
        &self,
        app: &AppName,
        role: Option<Role>,
    ) -> Result<Vec<ContainerSummary>> {
        let filters = names::of(app, role);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        self.api.list_containers(Some(options)).await.tried(OBSERVE)
    }

    /// Looks at everything of an app. `health` is what its keeper knows of its instances, and
    /// `routed` of its endpoints; `agents` is the image that those shall have which are to be moved.
    pub(crate) async fn observe(
        &self,
        app: &AppName,
        health: &BTreeMap<String, TargetReport>,
        routed: &BTreeMap<ServiceName, BTreeSet<String>>,
        agents: Option<&str>,
    ) -> Result<Observation> {
        let filters = names::of(app, None);
        let networks = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let volumes = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let (containers, networks, volumes) = tokio::join!(
            self.containers(app, None),
            self.api.list_networks(Some(networks)),
            self.api.list_volumes(Some(volumes)),
        );
        let containers = containers?;
        self.seen.list(app, &containers);
        let role =
            |c: &ContainerSummary, role: Role| label(&labels(c), names::ROLE) == role.as_str();
        let inspected =
            containers.iter().filter(|c| role(c, Role::Instance)).map(|c| self.instance(c, health));
        let mut instances: Vec<Instance> =
            try_join_all(inspected).await?.into_iter().flatten().collect();
        let holders = containers.iter().filter(|c| role(c, Role::Secrets)).map(|c| self.holder(c));
        let holders = try_join_all(holders).await?.into_iter().flatten().collect();
        hold_secrets(&mut instances, &containers, &holders);
        instances.sort_by(|a, b| a.id.cmp(&b.id));
        let is_running = |c: &&ContainerSummary| {
            c.state == Some(bollard::models::ContainerSummaryStateEnum::RUNNING)
        };
        let endpoints = containers
            .iter()
            .filter(|c| role(c, Role::Proxy))
            .filter(is_running)
            .filter_map(|c| {
                let mut found = endpoint(&labels(c), routed)?;
                if agents.is_some() && c.image.as_deref() != agents {
                    found.1.hash = SpecHash::from_text("");
                }
                Some(found)
            })
            .collect();
        let named = |labels: &HashMap<String, String>| labels.get(names::NAME).cloned();
        let networks = networks.tried(OBSERVE)?;
        let volumes = volumes.tried(OBSERVE)?.volumes.unwrap_or_default();
        // The network goes last.
        let (state, network) = (names::state(app), names::app_network(app));
        let has_keeper = volumes.iter().any(|v| v.name == state)
            || networks.iter().any(|n| n.name.as_deref() == Some(&network));
        let networks = networks.iter().filter_map(|n| named(n.labels.as_ref()?));
        let volumes = volumes.iter().filter_map(|v| named(&v.labels));
        Ok(Observation {
            instances,
            endpoints,
            volumes: volumes.filter_map(|name| name.parse().ok()).collect(),
            networks: networks.filter_map(|name| name.parse().ok()).collect(),
            has_keeper,
            ..Observation::default()
        })
    }

    /// One instance; nothing where its container has gone meanwhile.
    async fn instance(
        &self,
        listed: &ContainerSummary,
        health: &BTreeMap<String, TargetReport>,
    ) -> Result<Option<Instance>> {
        let container = listed.id.as_deref().unwrap_or_default();
        let Some(found) = self.look(listed).await? else { return Ok(None) };
        let Some(mut instance) = read(&found, health) else { return Ok(None) };
        if let Some(Reason::CrashLoop { exit, .. }) = &mut instance.trouble
            && instance.state == InstanceState::Running
            && let Some(code) = self.last_exit(container, instance.started_at).await
        {
            // While it runs again, the engine tells its last exit by its events alone.
            *exit = code.to_string();
        }
        Ok(Some(instance))
    }

    /// One container, inspected where it has changed since it was last; nothing where it has gone.
    async fn look(
        &self,
        listed: &ContainerSummary,
    ) -> Result<Option<Arc<ContainerInspectResponse>>> {
        if let Some(found) = self.seen.unchanged(listed) {
            return Ok(Some(found));
        }
        let container = listed.id.as_deref().unwrap_or_default();
        let begun = self.seen.begin(container);
        let found = self.api.inspect_container(container, None).await.optional(OBSERVE)?;
        let found = found.map(Arc::new);
        // What its own health checks say changes without an event.
        if let Some(found) = &found
            && found.state.as_ref().is_some_and(|state| state.health.is_none())
        {
            self.seen.keep(container, begun, found);
        }
        Ok(found)
    }

    /// What holds secrets in memory, by its name, and the second since when it has; nothing where
    /// it does not run.
    async fn holder(&self, listed: &ContainerSummary) -> Result<Option<(String, i64)>> {
        let found = self.look(listed).await?;
        let state = found.as_ref().and_then(|found| found.state.as_ref());
        let Some(state) = state.filter(|state| state.status == Some(Status::RUNNING)) else {
            return Ok(None);
        };
        let since = humantime::parse_rfc3339_weak(state.started_at.as_deref().unwrap_or_default());
        let since = since.ok().and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since = since.and_then(|since| i64::try_from(since.as_secs()).ok()).unwrap_or(0);
        Ok(Some((label(&labels(listed), names::HOLDER).to_owned(), since)))
    }

    async fn last_exit(&self, container: &str, started: Option<SystemTime>) -> Option<Exit> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let started = started?.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
        let filters = HashMap::from([
            ("container".to_owned(), vec![container.to_owned()]),
            ("event".to_owned(), vec!["die".to_owned()]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&started.saturating_sub(120).to_string())
            .until(&now.to_string())
            .filters(&filters)
            .build();
        let mut events = std::pin::pin!(self.api.events(Some(options)));
        let mut last = None;
        while let Some(Ok(event)) = events.next().await {
            let attributes = event.actor.and_then(|actor| actor.attributes).unwrap_or_default();
            last = attributes.get("exitCode").and_then(|code| code.parse().ok()).or(last);
        }
        last.map(exit)
    }
}

fn labels(container: &ContainerSummary) -> HashMap<String, String> {
    container.labels.clone().unwrap_or_default()
}

fn label<'a>(labels: &'a HashMap<String, String>, name: &str) -> &'a str {
    labels.get(name).map_or("", String::as_str)
}

/// An exit as the engine tells it: a signal by 128 more than its number.
fn exit(code: i64) -> Exit {
    match i32::try_from(code).unwrap_or(-1) {
        code @ 129..=192 => Exit::Signal(code - 128),
        code => Exit::Code(code),
    }
}

/// An instance whose secrets are no longer held in memory will not find them when it is started
/// again: it is to be replaced. What holds them was there before it; where that was started again
/// since, with all that used the memory (a reboot), it holds nothing.
fn hold_secrets(
    instances: &mut [Instance],
    containers: &[ContainerSummary],
    holders: &BTreeMap<String, i64>,
) {
    for container in containers {
        let labels = labels(container);
        let (holder, id) = (label(&labels, names::HOLDER), label(&labels, names::INSTANCE));
        let made = container.created.unwrap_or(i64::MAX);
        if holder.is_empty() || id.is_empty() || holders.get(holder).is_some_and(|at| *at <= made) {
            continue;
        }
        if let Some(instance) = instances.iter_mut().find(|i| i.id == id)
            && instance.exit().is_none()
        {
            instance.ready = false;
            instance.hash = SpecHash::from_text("");
            instance.trouble = Some(Reason::SecretMissing {
                secret: "those in memory: what held them there has ended".to_owned(),
            });
        }
    }
}

fn endpoint(
    labels: &HashMap<String, String>,
    routed: &BTreeMap<ServiceName, BTreeSet<String>>,
) -> Option<(ServiceName, Endpoint)> {
    let service: ServiceName = label(labels, names::SERVICE).parse().ok()?;
    let ports: Vec<EndpointPort> = serde_json::from_str(label(labels, names::PORTS)).ok()?;
    // One that its maker, or who was removing it, died over serves nothing: it is to be made anew.
    let (hash, routed) = match routed.get(&service) {
        Some(routed) => (label(labels, names::HASH), routed.clone()),
        None => ("", BTreeSet::new()),
    };
    Some((service, Endpoint { hash: SpecHash::from_text(hash), ports, routed }))
}

/// What a container is as an instance; nothing where its labels are not those of one.
fn read(
    found: &ContainerInspectResponse,
    health: &BTreeMap<String, TargetReport>,
) -> Option<Instance> {
    let config = found.config.as_ref()?;
    let labels = config.labels.as_ref()?;
    let state = found.state.as_ref()?;
    let id = label(labels, names::INSTANCE).to_owned();
    let restarts = u32::try_from(found.restart_count.unwrap_or(0)).unwrap_or(0);
    let code = exit(state.exit_code.unwrap_or(0));
    let started = state.started_at.as_deref().unwrap_or_default();
    // What was never started has one in the year 1, which is none here.
    let since = humantime::parse_rfc3339_weak(started).ok();
    let doing = match state.status {
        Some(Status::RUNNING | Status::PAUSED) => InstanceState::Running,
        Some(Status::RESTARTING) => InstanceState::BackOff,
        Some(Status::EXITED | Status::DEAD) => InstanceState::Exited(code),
        // Nothing of it runs while it is being removed.
        Some(Status::REMOVING) if since.is_some() => InstanceState::Exited(code),
        // One that was made and never started is the work of a deployer that died in between.
        _ => InstanceState::Stopping,
    };
    let running = state.status == Some(Status::RUNNING);
    let probed = label(labels, names::PROBES);
    let engine = state.health.as_ref();
    let by_engine = matches!(probed, "engine" | "both");
    let by_keeper = matches!(probed, "keeper" | "both");
    let healthy =
        !by_engine || engine.is_some_and(|health| health.status == Some(HealthStatusEnum::HEALTHY));
    let asked = health.get(&id);
    let ready = running && healthy && (!by_keeper || asked.is_some_and(|asked| asked.health.ready));
    let memory = found.host_config.as_ref().and_then(|host| host.memory);
    let limit = memory.and_then(|bytes| u64::try_from(bytes).ok()).filter(|bytes| *bytes > 0);
    let failing = asked.and_then(|asked| asked.health.failing.clone());
    let failing = failing.map(|answer| (answer.probe.to_string(), answer.text));
    let unhealthy = engine
        .filter(|health| by_engine && health.status == Some(HealthStatusEnum::UNHEALTHY))
        .map(|health| {
            let last = health.log.iter().flatten().last();
            let code = last.and_then(|last| last.exit_code).unwrap_or(0);
            let said = last.and_then(|last| last.output.as_deref()).unwrap_or_default().trim();
            ("readiness".to_owned(), format!("exit code {code}: {said}"))
        });
    let ended = matches!(doing, InstanceState::BackOff | InstanceState::Exited(_));
    let trouble = if state.oom_killed == Some(true) && ended {
        Some(Reason::OutOfMemory { limit })
    } else if doing == InstanceState::BackOff || (restarts > 0 && !ready && !ended) {
        Some(Reason::CrashLoop { exit: code.to_string(), restarts, log: Vec::new() })
    } else if running && !ready {
        unhealthy.or(failing).map(|(probe, answer)| Reason::ProbeFailing {
            probe,
            answer,
            log: Vec::new(),
        })
    } else {
        None
    };
    let ports = label(labels, names::PORTS).split(',').filter_map(|port| port.parse().ok());
    let container = found.id.as_deref().unwrap_or_default();
    let short = container.get(..12).unwrap_or(container);
    Some(Instance {
        service: label(labels, names::SERVICE).parse().ok()?,
        revision: label(labels, names::REVISION).parse().ok()?,
        hash: SpecHash::from_text(label(labels, names::HASH)),
        slot: label(labels, names::SLOT).parse().ok()?,
        state: doing,
        ready,
        restarts,
        addresses: ports.map(|port| Address { host: id.clone(), port }).collect(),
        started_at: since.filter(|_| running),
        host: match state.pid {
            Some(pid @ 1..) => format!("container {short}, pid {pid}"),
            _ => format!("container {short}"),
        },
        trouble,
        id,
    })
}
