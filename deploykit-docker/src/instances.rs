//! Starting and ending instances.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{
    ContainerCreateBody, ContainerStateStatusEnum as Status, EndpointSettings, HealthConfig,
    HostConfig, Mount as EngineMount, MountTmpfsOptions, MountType, NetworkingConfig,
    RestartPolicy as EngineRestart, RestartPolicyNameEnum,
};
use bollard::query_parameters::{StopContainerOptionsBuilder, UploadToContainerOptionsBuilder};
use deploykit_agent::control::Target;
use deploykit_core::model::{
    Address, AppName, Check, Contract, Listen, Mount, Probe, Probes, RestartPolicy, Signal,
    VolumeScope,
};
use deploykit_core::{Diagnosis, Error, ErrorKind, Fence, InstanceSpec, Reason, Result, Template};

use crate::endpoints::starting;
use crate::error::{Mapped as _, engine, error, status};
use crate::files::Files;
use crate::names::{self, Role};
use crate::runtime::Docker;
use crate::{agent, images, networks};

pub(crate) const SECRETS: &str = "/run/secrets";
pub(crate) const CONFIGS: &str = "/run/configs";
pub(crate) const VOLUMES: &str = "/volumes";

const START: &str = "start an instance";
/// The CPU shares that the engine gives a whole CPU.
const SHARES: i64 = 1024;
/// How long the engine may take to start a container until it is asked anyway: its name is known
/// before it is reached, and who asks too early is not heard for up to a second, the time between
/// two questions for an address (RFC 4861, RETRANS_TIMER; the same for ARP).
const STARTING: Duration = Duration::from_secs(5);
/// The shortest time between two health checks that the engine takes.
const SHORTEST: Duration = Duration::from_millis(1);

impl Docker {
    /// Starts an instance; see [`Runtime::start`](deploykit_core::Runtime::start).
    pub(crate) async fn start_instance(&self, fence: &Fence, spec: &InstanceSpec) -> Result<()> {
        let app = &fence.app;
        let name = names::instance(app, &spec.id);
        let keeper = self.keepers.get(app).await?;
        // Nothing is known of it yet; this sees to it that a late deployer starts nothing.
        keeper.agent.remove_target(fence, &spec.id).await?;
        let mut started = self.make_and_start(fence, spec, &name).await;
        if started.as_ref().is_err_and(is_without_network) {
            // The keeper keeps it there as long as it runs, so it is not looked for beforehand.
            self.engine.ensure_network(app, &names::app_network(app), &[]).await?;
            started = self.make_and_start(fence, spec, &name).await;
        }
        if started.as_ref().is_err_and(is_without_image)
            && self.give_again(app, &spec.template.image).await?
        {
            started = self.make_and_start(fence, spec, &name).await;
        }
        started.map_err(|cause| self.explain(spec, cause))?;
        self.ask_anew(fence, spec, &name).await
    }

    /// Makes the container of an instance and starts it; one that has been started is left as it
    /// is.
    async fn make_and_start(&self, fence: &Fence, spec: &InstanceSpec, name: &str) -> Result<()> {
        if !self.make(fence, spec, name).await? {
            let there = self.engine.api.inspect_container(name, None).await.tried(START)?;
            if there.state.and_then(|state| state.status) != Some(Status::CREATED) {
                return Ok(());
            }
            // What a deployer has left that died before it was whole.
            self.engine.remove(name).await?;
            self.make(fence, spec, name).await?;
        }
        // Before it runs: an instance that nobody asks, since a deployer has died in between, would
        // never be ready.
        if !spec.template.ports.is_empty() {
            let keeper = self.keepers.get(&fence.app).await?.agent;
            keeper.set_target(fence, &spec.id, target(spec, None)).await?;
        }
        drop(self.engine.turn(&starting(&names::proxy(&fence.app, &spec.service))).await);
        if let Err(cause) = self.engine.api.start_container(name, None).await {
            // It would be found half made by whoever comes next.
            if let Err(error) = self.engine.remove(name).await {
                tracing::warn!(%error, "a container that did not start is left");
            }
            return Err(engine(START, cause));
        }
        Ok(())
    }

    /// Lets the probes begin with the start of the container, those of its service's proxy, too.
    async fn ask_anew(&self, fence: &Fence, spec: &InstanceSpec, name: &str) -> Result<()> {
        if spec.template.ports.is_empty() {
            return Ok(());
        }
        let (app, service) = (&fence.app, &spec.service);
        let found = self.engine.api.inspect_container(name, None).await.tried(START)?;
        let start = found.state.and_then(|state| state.started_at).unwrap_or_default();
        let target = target(spec, Some(start));
        let keeper = self.keepers.get(app).await?.agent;
        keeper.set_target(fence, &spec.id, target.clone()).await?;
        // It may be made at this moment. Where there is none yet, the route tells it.
        let _turn = self.engine.turn(&names::proxy(app, service)).await;
        if self.has_proxy(app, service).await? {
            let told = self.proxy(app, service).set_target(fence, &spec.id, target).await;
            self.unless_gone(app, service, told).await?;
        }
        Ok(())
    }

    /// Makes the container of an instance, with all that it finds there. Returns whether there was
    /// none.
    async fn make(&self, fence: &Fence, spec: &InstanceSpec, name: &str) -> Result<bool> {
        let (app, template) = (&fence.app, &spec.template);
        let image = images::of_container(app, &template.image);
        let networks = networks::of_instance(self, app, spec).await?;
        let holder = self.hold_secrets(fence, spec, &image).await?;
        let mut mounts = self.volumes(app, spec).await?;
        if let Some(holder) = &holder {
            mounts.push(EngineMount {
                typ: Some(MountType::VOLUME),
                source: Some(holder.clone()),
                target: Some(SECRETS.to_owned()),
                read_only: Some(true),
                ..EngineMount::default()
            });
        }
        let mut body = body(app, spec, image, &networks[0], mounts, holder)?;
        let guarded = template.probes.liveness.is_some();
        if guarded {
            self.guard(spec, &mut body).await?;
        }
        if !self.engine.create(app, name, body).await? {
            return Ok(false);
        }
        if guarded {
            agent::copy(&self.engine, &names::keeper(app), name).await?;
        }
        for network in &networks[1..] {
            self.engine.join(name, network, vec![spec.id.clone()]).await?;
        }
        let files = files(template);
        if !files.is_empty() {
            let options = UploadToContainerOptionsBuilder::new().path("/").build();
            let upload = bollard::body_full(files.archive()?.into());
            let api = &self.engine.api;
            api.upload_to_container(name, Some(options), upload).await.tried(START)?;
        }
        Ok(true)
    }

    /// Puts the agent before the program of an instance, to end it when it is not alive.
    async fn guard(&self, spec: &InstanceSpec, body: &mut ContainerCreateBody) -> Result<()> {
        let probes = &spec.template.probes;
        let asked = Probes {
            startup: probes.startup.clone(),
            readiness: None,
            liveness: probes.liveness.clone(),
        };
        let image = body.image.clone().unwrap_or_default();
        let image = self.engine.api.inspect_image(&image).await.tried(START)?.config;
        let (entrypoint, arguments) =
            image.map(|image| (image.entrypoint, image.cmd)).unwrap_or_default();
        // As the engine does it: what replaces the entry point replaces its arguments, too.
        let arguments = body.cmd.take().or(arguments.filter(|_| body.entrypoint.is_none()));
        let program = body.entrypoint.take().or(entrypoint).unwrap_or_default();
        let probes = serde_json::to_string(&asked)
            .map_err(|e| error(ErrorKind::Failed, START, e.to_string()))?;
        let ports: Vec<String> =
            spec.template.ports.iter().map(|port| port.port.to_string()).collect();
        let guard =
            [agent::PROGRAM.to_owned(), "run".to_owned(), probes, ports.join(","), "--".to_owned()];
        body.entrypoint = Some(guard.to_vec());
        body.cmd = Some(program.into_iter().chain(arguments.unwrap_or_default()).collect());
        Ok(())
    }

    /// The volumes that an instance mounts, made where they are its own.
    async fn volumes(&self, app: &AppName, spec: &InstanceSpec) -> Result<Vec<EngineMount>> {
        let mut mounts = Vec::new();
        for mount in &spec.template.mounts {
            let made = match mount {
                Mount::Volume(mount) => {
                    let own =
                        spec.template.volumes.get(&mount.name) == Some(&VolumeScope::PerReplica);
                    let slot = own.then_some(spec.slot);
                    let source = self.engine.ensure_volume(app, &mount.name, slot).await?;
                    let standard = || format!("{VOLUMES}/{}", mount.name);
                    let target = mount.target.as_ref().map_or_else(standard, |t| text(t));
                    EngineMount {
                        typ: Some(MountType::VOLUME),
                        source: Some(source),
                        target: Some(target),
                        read_only: Some(mount.read_only),
                        ..EngineMount::default()
                    }
                }
                Mount::Bind(mount) => EngineMount {
                    typ: Some(MountType::BIND),
                    source: Some(text(&mount.source)),
                    target: Some(text(&mount.target)),
                    read_only: Some(mount.read_only),
                    ..EngineMount::default()
                },
                Mount::Tmpfs(mount) => EngineMount {
                    typ: Some(MountType::TMPFS),
                    target: Some(text(&mount.target)),
                    tmpfs_options: Some(MountTmpfsOptions {
                        size_bytes: mount.size.and_then(|size| i64::try_from(size.get()).ok()),
                        ..MountTmpfsOptions::default()
                    }),
                    ..EngineMount::default()
                },
                Mount::Secret(_) | Mount::Config(_) => continue,
                other => {
                    let message = format!("this release cannot mount {other:?}");
                    return Err(error(ErrorKind::Unsupported, START, message));
                }
            };
            mounts.push(made);
        }
        Ok(mounts)
    }

    /// Ends an instance; see [`Runtime::stop`](deploykit_core::Runtime::stop).
    pub(crate) async fn stop_instance(&self, fence: &Fence, instance: &str) -> Result<()> {
        const STOP: &str = "stop an instance";
        let name = names::instance(&fence.app, instance);
        self.keepers.get(&fence.app).await?.agent.remove_target(fence, instance).await?;
        let Some(container) = self.engine.ours(&fence.app, &name).await? else { return Ok(()) };
        let options = StopContainerOptionsBuilder::new().build();
        match self.engine.api.stop_container(&container.id, Some(options)).await {
            // It has ended already.
            Err(cause) if matches!(status(&cause), Some(304 | 404)) => Ok(()),
            answer => answer.tried(STOP),
        }
    }

    /// Removes an instance; see [`Runtime::remove`](deploykit_core::Runtime::remove).
    pub(crate) async fn remove_instance(&self, fence: &Fence, instance: &str) -> Result<()> {
        let name = names::instance(&fence.app, instance);
        self.keepers.get(&fence.app).await?.agent.remove_target(fence, instance).await?;
        let Some(container) = self.engine.ours(&fence.app, &name).await? else { return Ok(()) };
        let labels = &container.labels;
        if labels.get(names::PORTS).is_some_and(|ports| !ports.is_empty())
            && let Some(service) = labels.get(names::SERVICE).and_then(|name| name.parse().ok())
            && self.has_proxy(&fence.app, &service).await?
        {
            let removed = self.proxy(&fence.app, &service).remove_target(fence, instance).await;
            self.unless_gone(&fence.app, &service, removed).await?;
        }
        self.engine.remove(&container.id).await
    }

    /// The error of an instance that cannot run, with the reason that fits.
    fn explain(&self, spec: &InstanceSpec, cause: Error) -> Error {
        let said = cause.message().to_owned();
        let reason = if cause.kind() == ErrorKind::Unavailable || cause.kind() == ErrorKind::Timeout
        {
            return cause;
        } else if is_without_image(&cause) {
            Reason::ImageNotFound { image: spec.template.image.to_string() }
        } else if cause.operation() == crate::secrets::GIVE && cause.kind() == ErrorKind::NotFound {
            Reason::SecretMissing { secret: said.clone() }
        } else {
            Reason::StartFailed { message: said.clone() }
        };
        let service = spec.service.clone();
        let diagnosis = Diagnosis { service, instance: Some(spec.id.clone()), reason };
        error(cause.kind(), START, said)
            .with("instance", &spec.id)
            .with_diagnoses(vec![diagnosis])
            .because(cause)
    }
}

/// Whether a container's network is not there.
fn is_without_network(cause: &Error) -> bool {
    cause.message().contains("network") && cause.message().contains("not found")
}

/// Whether a container's image is not there.
fn is_without_image(cause: &Error) -> bool {
    ["o such image", "image not found"].iter().any(|word| cause.message().contains(word))
}

fn text(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}

/// How an instance is reached, and when it was started, where that is known.
fn target(spec: &InstanceSpec, start: Option<String>) -> Target {
    let ports = spec.template.ports.iter();
    let ports = ports.map(|port| (port.port, format!("{}:{}", spec.id, port.port))).collect();
    let mut probes = asked(&spec.template.probes);
    if start.is_none() {
        for probe in [&mut probes.startup, &mut probes.readiness].into_iter().flatten() {
            probe.initial_delay = probe.initial_delay.max(STARTING);
        }
    }
    Target { ports, probes, start: start.unwrap_or_default() }
}

/// What the keeper asks of an instance: neither commands, which the engine runs, nor whether it is
/// alive, which is asked where it can be ended.
fn asked(probes: &Probes) -> Probes {
    let of = |probe: &Option<Probe>| {
        probe.clone().filter(|probe| !matches!(probe.check, Check::Exec(_)))
    };
    Probes { startup: of(&probes.startup), readiness: of(&probes.readiness), liveness: None }
}

/// The command that the engine itself runs to tell whether an instance is ready.
fn health_check(probes: &Probes) -> HealthConfig {
    let exec = [&probes.readiness, &probes.startup].into_iter().flatten().find_map(|probe| {
        match &probe.check {
            Check::Exec(check) => Some((probe, check)),
            _ => None,
        }
    });
    let Some((probe, check)) = exec else {
        // That of the image is no question of the app's.
        return HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
    };
    let nanos = |time: Duration| i64::try_from(time.max(SHORTEST).as_nanos()).ok();
    // One command for both: what may fail while it starts is not counted in that time.
    let starting = probes.startup.as_ref().filter(|startup| startup.check == probe.check);
    let start = match starting.filter(|_| probes.readiness.is_some()) {
        Some(startup) => {
            startup.initial_delay + startup.interval.saturating_mul(startup.failure_threshold)
        }
        None => probe.initial_delay,
    };
    let start = (!start.is_zero()).then_some(start);
    HealthConfig {
        test: Some([vec!["CMD".to_owned()], check.command.clone()].concat()),
        interval: nanos(probe.interval),
        timeout: nanos(probe.timeout),
        retries: Some(i64::from(probe.failure_threshold)),
        start_period: start.and_then(nanos),
        ..HealthConfig::default()
    }
}

fn restart(spec: &InstanceSpec) -> EngineRestart {
    let name = match spec.template.restart {
        _ if spec.job => RestartPolicyNameEnum::NO,
        RestartPolicy::Always => RestartPolicyNameEnum::ALWAYS,
        RestartPolicy::OnFailure => RestartPolicyNameEnum::ON_FAILURE,
        _ => RestartPolicyNameEnum::NO,
    };
    EngineRestart { name: Some(name), maximum_retry_count: None }
}

/// The word of a signal.
fn signal(signal: Signal) -> String {
    let word = serde_json::to_value(signal).ok();
    word.and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_else(|| "SIGTERM".to_owned())
}

/// Configs, and what stands in for secrets that are wanted at a place of their own.
fn files(template: &Template) -> Files {
    let mut files = Files::default();
    for mount in &template.mounts {
        match mount {
            Mount::Config(mount) => {
                let content = template.configs.get(&mount.name).map_or("", String::as_str);
                let standard = || format!("{CONFIGS}/{}", mount.name);
                let path = mount.target.as_ref().map_or_else(standard, |t| text(t));
                files.file(path, content, 0o444);
            }
            Mount::Secret(mount) => {
                if let Some(target) = &mount.target {
                    files.link(text(target), format!("{SECRETS}/{}", mount.name));
                }
            }
            _ => {}
        }
    }
    files
}

/// The environment of an instance.
fn environment(spec: &InstanceSpec) -> Vec<String> {
    let template = &spec.template;
    let contract = Contract {
        instance: &spec.id,
        listen: Listen {
            host: "0.0.0.0".to_owned(),
            advertise: spec.id.clone(),
            ports: template.ports.iter().map(|port| (port.name.clone(), port.port)).collect(),
        },
        peers: template
            .peers
            .iter()
            .map(|(peer, port)| (peer, Address { host: peer.to_string(), port: *port }))
            .collect(),
        secrets_dir: SECRETS,
        configs_dir: CONFIGS,
        volumes_dir: VOLUMES,
    };
    let mut variables = template.env.clone();
    variables.extend(contract.variables());
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// What the container of an instance is.
fn body(
    app: &AppName,
    spec: &InstanceSpec,
    image: String,
    network: &str,
    mounts: Vec<EngineMount>,
    holder: Option<String>,
) -> Result<ContainerCreateBody> {
    let template = &spec.template;
    let probes = &template.probes;
    let is_exec = |probe: &Option<Probe>| {
        probe.as_ref().is_some_and(|probe| matches!(probe.check, Check::Exec(_)))
    };
    let by_engine = is_exec(&probes.readiness) || is_exec(&probes.startup);
    let questions = asked(probes);
    let by_keeper = questions.startup.is_some() || questions.readiness.is_some();
    let check = |probe: &Option<Probe>| probe.as_ref().map(|probe| probe.check.clone());
    let both = is_exec(&probes.readiness) && is_exec(&probes.startup);
    if both && check(&probes.readiness) != check(&probes.startup) {
        let message = "an engine asks one command: let the startup probe and the readiness probe \
             ask the same, or make one of them an http or tcp one";
        return Err(error(ErrorKind::Unsupported, START, message));
    }
    let probed = match (by_engine, by_keeper) {
        (true, true) => "both",
        (true, false) => "engine",
        (false, true) => "keeper",
        (false, false) => "",
    };
    let mut labels: HashMap<String, String> = template.labels.clone().into_iter().collect();
    labels.extend(names::labels(app, Role::Instance));
    let ports: Vec<String> = template.ports.iter().map(|port| port.port.to_string()).collect();
    let own = [
        (names::SERVICE, spec.service.to_string()),
        (names::REVISION, spec.revision.to_string()),
        (names::HASH, spec.hash.to_string()),
        (names::SLOT, spec.slot.to_string()),
        (names::INSTANCE, spec.id.clone()),
        (names::PROBES, probed.to_owned()),
        (names::PORTS, ports.join(",")),
        (names::HOLDER, holder.unwrap_or_default()),
    ];
    labels.extend(own.map(|(name, value)| (name.to_owned(), value)));
    let limits = &template.resources;
    let millis = |cpu: deploykit_core::model::Cpu| i64::from(cpu.as_millis());
    let bytes =
        |bytes: deploykit_core::model::Bytes| i64::try_from(bytes.get()).unwrap_or(i64::MAX);
    let networking =
        EndpointSettings { aliases: Some(vec![spec.id.clone()]), ..EndpointSettings::default() };
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    Ok(ContainerCreateBody {
        hostname: Some(spec.id.clone()),
        user: template.user.clone(),
        env: Some(environment(spec)),
        entrypoint: some(&template.command),
        cmd: some(&template.args),
        healthcheck: Some(health_check(probes)),
        image: Some(image),
        working_dir: template.workdir.as_deref().map(text),
        labels: Some(labels),
        stop_signal: Some(signal(template.stop_signal)),
        // Of less than a second the engine makes no time at all.
        stop_timeout: i64::try_from(template.stop_grace.as_millis().div_ceil(1000)).ok(),
        host_config: Some(HostConfig {
            cpu_shares: limits.cpu_request.map(|cpu| (millis(cpu) * SHARES / 1000).max(2)),
            nano_cpus: limits.cpu_limit.map(|cpu| millis(cpu) * 1_000_000),
            memory: limits.memory_limit.map(bytes),
            memory_swap: limits.memory_limit.map(bytes),
            memory_reservation: limits.memory_request.map(bytes),
            restart_policy: Some(restart(spec)),
            network_mode: Some(network.to_owned()),
            mounts: Some(mounts),
            ..HostConfig::default()
        }),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.to_owned(), networking)])),
        }),
        ..ContainerCreateBody::default()
    })
}
