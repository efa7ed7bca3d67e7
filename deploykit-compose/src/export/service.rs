//! Services and jobs.

use deploykit_core::model::{
    Check, Condition, EndpointMode, ImageBuild, ImageSpec, Job, Mount, OnFailure, Port, Probe,
    Probes, Protocol, Publish, Replicas, Resources, RestartPolicy, Rolling, Service, ServiceName,
    Strategy, Update, Workload,
};

use crate::app::BINARY;
use crate::app::mounts::{CONFIGS, SECRETS, VOLUMES};
use crate::short::format_duration;
use crate::yaml::{Node, Value};

use super::{Exporter, list, map, text, with};

impl Exporter {
    pub(super) fn service(&mut self, name: &ServiceName, service: &Service) -> Node {
        let path = format!("services.{name}");
        let mut node = self.workload(&path, service.workload());
        self.ports(&path, &service.ports, &mut node);
        self.probes(&path, &service.probes, &mut node);
        let mut deploy = node.take("deploy").unwrap_or_else(map);
        match service.replicas {
            Replicas::Fixed(1) => {}
            Replicas::Fixed(n) => deploy.set("replicas", Value::Int(n.into())),
            Replicas::Global => deploy.set("mode", text("global")),
            _ => self.problem(format!("{path}.replicas"), "Compose does not scale by itself"),
        }
        if service.endpoint_mode == EndpointMode::Dnsrr {
            deploy.set("endpoint_mode", text("dnsrr"));
        }
        if service.update != Update::default() {
            deploy.put("update_config", self.update(&format!("{path}.update"), &service.update));
        }
        node.set_some("deploy", deploy.value);
        node.set(
            "restart",
            text(match service.restart {
                RestartPolicy::OnFailure => "on-failure",
                RestartPolicy::Never => "no",
                _ => "always",
            }),
        );
        node
    }

    pub(super) fn job(&mut self, name: &ServiceName, job: &Job, awaited: bool) -> Node {
        let path = format!("jobs.{name}");
        let mut node = self.workload(&path, job.workload());
        if job.schedule.is_some() {
            self.problem(format!("{path}.schedule"), "a Compose project has no schedules");
        }
        if job.timeout.is_some() {
            self.problem(format!("{path}.timeout"), "Compose does not end what takes too long");
        }
        if job.retries > 0 {
            node.set("restart", Value::String(format!("on-failure:{}", job.retries)));
        }
        if !awaited {
            let mut deploy = node.take("deploy").unwrap_or_else(map);
            deploy.set("mode", text("replicated-job"));
            node.put("deploy", deploy);
        }
        node
    }

    fn workload(&mut self, path: &str, workload: Workload<'_>) -> Node {
        let mut node = map();
        match workload.image {
            ImageSpec::Binary(file) => node.set(BINARY, text(file.display())),
            ImageSpec::Reference(reference) => node.set("image", text(reference)),
            ImageSpec::Build(build) => {
                let build = self.build(&format!("{path}.image.build"), build);
                node.put("build", build);
            }
            _ => self.problem(format!("{path}.image"), "Compose has no such image"),
        }
        node.set_some("entrypoint", list(workload.command.iter().map(text)));
        node.set_some("command", list(workload.args.iter().map(text)));
        node.set_some("environment", pairs(workload.env));
        node.set_some("labels", pairs(workload.labels));
        if let Some(workdir) = workload.workdir {
            node.set("working_dir", text(workdir.display()));
        }
        if let Some(user) = workload.user {
            node.set("user", text(user));
        }
        let mut dependencies = map();
        for (name, condition) in workload.depends_on {
            let condition = match condition {
                Condition::Started => "service_started",
                Condition::Healthy => "service_healthy",
                Condition::Completed => "service_completed_successfully",
            };
            dependencies.put(name.as_str(), with([("condition", text(condition))]));
        }
        node.set_some("depends_on", dependencies.value);
        node.set_some("links", list(workload.connects_to.iter().map(text)));
        let mut networks = map();
        for name in workload.networks {
            networks.set(name.as_str(), Value::Null);
        }
        if !workload.networks.is_empty() {
            networks.set("default", Value::Null);
        }
        node.set_some("networks", networks.value);
        if workload.stop_signal != Default::default() {
            // A signal's serialised form is its name.
            let name = serde_json::to_value(workload.stop_signal).unwrap_or_default();
            node.set("stop_signal", text(name.as_str().unwrap_or_default()));
        }
        if workload.stop_grace.as_secs_f64() != 10.0 {
            node.set("stop_grace_period", text(format_duration(workload.stop_grace)));
        }
        for mount in workload.mounts {
            mounted(mount, &mut node);
        }
        let mut deploy = map();
        deploy.set_some("resources", resources(workload.resources).value);
        if workload.service_account.is_some() {
            let path = format!("{path}.service_account");
            self.problem(path, "Compose has no accounts of a cluster");
        }
        let placement = workload.placement;
        let constraint = |(name, value): (&String, &String)| {
            Value::String(format!("node.labels.{name}=={value}"))
        };
        let mut placed = map();
        placed.set_some("constraints", list(placement.constraints.iter().map(constraint)));
        let spread = placement.spread.iter();
        let spread = spread
            .map(|label| with([("spread", Value::String(format!("node.labels.{label}")))]).value);
        placed.set_some("preferences", list(spread));
        deploy.set_some("placement", placed.value);
        node.set_some("deploy", deploy.value);
        node
    }

    fn build(&mut self, path: &str, build: &ImageBuild) -> Node {
        let mut node = map();
        node.set("context", text(build.context.display()));
        if let Some(file) = &build.dockerfile {
            node.set("dockerfile", text(file.display()));
        }
        if let Some(content) = &build.dockerfile_inline {
            node.set("dockerfile_inline", text(content));
        }
        node.set_some("args", pairs(&build.args));
        if let Some(target) = &build.target {
            node.set("target", text(target));
        }
        node.set_some("labels", pairs(&build.labels));
        for (key, set) in [("no_cache", build.no_cache), ("pull", build.pull)] {
            if set {
                node.set(key, Value::Bool(true));
            }
        }
        if !build.secrets.is_empty() {
            self.problem(
                format!("{path}.secrets"),
                "a build's secrets are declared by the project",
            );
        }
        node
    }

    fn ports(&mut self, path: &str, ports: &[Port], node: &mut Node) {
        let internal = |port: &&Port| port.publish == Publish::Internal;
        let sorted = ports.iter().is_sorted_by_key(|port| internal(&port));
        if !sorted {
            let what = "Compose has published ports before those that are not";
            self.problem(format!("{path}.ports"), what);
        }
        let (mut published, mut exposed) = (Vec::new(), Vec::new());
        for (index, port) in ports.iter().enumerate() {
            let at = format!("{path}.ports[{index}]");
            let implied = (index > 0).then(|| format!("p{}", port.port));
            let name =
                port.name.as_ref().map(ToString::to_string).filter(|n| implied.as_ref() != Some(n));
            if index > 0 && port.name.is_none() {
                self.problem(format!("{at}.name"), "Compose names the second port and later ones");
            }
            if port.publish == Publish::Internal {
                if name.is_some() {
                    self.problem(format!("{at}.name"), "Compose names published ports only");
                }
                match port.protocol {
                    Protocol::Tcp => exposed.push(text(port.port)),
                    Protocol::Udp => exposed.push(Value::String(format!("{}/udp", port.port))),
                    _ => self.problem(
                        format!("{at}.protocol"),
                        "Compose tells HTTP of published ports only",
                    ),
                }
                continue;
            }
            let mut long = with([("target", Value::Int(port.port.into()))]);
            if let Some(name) = name {
                long.set("name", text(name));
            }
            match port.protocol {
                Protocol::Udp => long.set("protocol", text("udp")),
                Protocol::Http => long.set("app_protocol", text("http")),
                _ => {}
            }
            match &port.publish {
                Publish::HostPort(number) => long.set("published", text(number)),
                Publish::Public => {}
                _ => self.problem(format!("{at}.publish"), "Compose has no routes"),
            }
            published.push(long.value);
        }
        node.set_some("ports", list(published));
        node.set_some("expose", list(exposed));
    }

    fn probes(&mut self, path: &str, probes: &Probes, node: &mut Node) {
        let path = format!("{path}.probes");
        if probes.liveness.is_some() {
            let what = "Compose starts nothing again that is not healthy";
            self.problem(format!("{path}.liveness"), what);
        }
        let Some(probe) = &probes.readiness else {
            if probes.startup.is_some() {
                self.problem(format!("{path}.startup"), "Compose has one health check");
            }
            return;
        };
        let Check::Exec(check) = &probe.check else {
            let what = "Compose asks by a command alone";
            return self.problem(format!("{path}.readiness.check"), what);
        };
        if !probe.initial_delay.is_zero() || probe.success_threshold != 1 {
            let what = "Compose has neither an initial delay nor a number of successes";
            self.problem(format!("{path}.readiness"), what);
        }
        let words = ["CMD"].into_iter().map(text).chain(check.command.iter().map(text));
        let mut health = with([
            ("test", list(words)),
            ("interval", text(format_duration(probe.interval))),
            ("timeout", text(format_duration(probe.timeout))),
            ("retries", Value::Int(probe.failure_threshold.into())),
        ]);
        if let Some(startup) = &probes.startup {
            let more = startup.failure_threshold.checked_sub(probe.failure_threshold);
            let alike = Probe { failure_threshold: probe.failure_threshold, ..startup.clone() };
            match more.filter(|more| *more > 0 && alike == *probe) {
                Some(more) => {
                    health.set("start_period", text(format_duration(probe.interval * more)));
                }
                None => self.problem(
                    format!("{path}.startup"),
                    "Compose has a time in which the one health check may fail",
                ),
            }
        }
        node.put("healthcheck", health);
    }

    fn update(&mut self, path: &str, update: &Update) -> Node {
        let (parallelism, order) = match update.strategy {
            Strategy::Recreate => (0, "stop-first"),
            Strategy::BlueGreen => (0, "start-first"),
            Strategy::Rolling(Rolling { surge, unavailable: 0 }) => (surge, "start-first"),
            Strategy::Rolling(Rolling { surge: 0, unavailable }) => (unavailable, "stop-first"),
            _ => {
                let what = "Compose starts first or stops first, so many at a time";
                self.problem(format!("{path}.strategy"), what);
                (1, "start-first")
            }
        };
        if update.progress_deadline != Update::default().progress_deadline {
            let what = "Compose has no deadline of progress";
            self.problem(format!("{path}.progress_deadline"), what);
        }
        let action = match update.on_failure {
            OnFailure::RollBack => "rollback",
            OnFailure::Pause => "pause",
            _ => "continue",
        };
        with([
            ("parallelism", Value::Int(parallelism.into())),
            ("order", text(order)),
            ("monitor", text(format_duration(update.monitor))),
            ("failure_action", text(action)),
        ])
    }
}

fn pairs(all: &std::collections::BTreeMap<String, String>) -> Value {
    let mut node = map();
    for (name, value) in all {
        node.set(name, text(value));
    }
    node.value
}

fn resources(resources: &Resources) -> Node {
    let cpu = |cpu: deploykit_core::model::Cpu| {
        let millis = cpu.as_millis();
        Value::String(format!("{}.{:03}", millis / 1000, millis % 1000))
    };
    let section = |cpus: Option<_>, memory: Option<deploykit_core::model::Bytes>| {
        let mut node = map();
        cpus.into_iter().for_each(|cpus| node.set("cpus", cpu(cpus)));
        memory.into_iter().for_each(|bytes| node.set("memory", text(bytes.get())));
        node.value
    };
    let mut node = map();
    node.set_some("limits", section(resources.cpu_limit, resources.memory_limit));
    node.set_some("reservations", section(resources.cpu_request, resources.memory_request));
    node
}

fn mounted(mount: &Mount, node: &mut Node) {
    let place = |target: Option<&std::path::PathBuf>, folder: &str, name: &str| {
        text(target.map_or_else(|| format!("{folder}/{name}"), |t| t.display().to_string()))
    };
    let (key, mut long, read_only) = match mount {
        Mount::Volume(m) => {
            let target = place(m.target.as_ref(), VOLUMES, m.name.as_str());
            let long = [("type", text("volume")), ("source", text(&m.name)), ("target", target)];
            ("volumes", with(long), m.read_only)
        }
        Mount::Bind(m) => {
            let (source, target) = (text(m.source.display()), text(m.target.display()));
            let long = [("type", text("bind")), ("source", source), ("target", target)];
            ("volumes", with(long), m.read_only)
        }
        Mount::Tmpfs(m) => {
            let mut long = with([("type", text("tmpfs")), ("target", text(m.target.display()))]);
            if let Some(size) = m.size {
                long.put("tmpfs", with([("size", text(size.get()))]));
            }
            ("volumes", long, false)
        }
        Mount::Secret(m) => {
            let target = place(m.target.as_ref(), SECRETS, m.name.as_str());
            ("secrets", with([("source", text(&m.name)), ("target", target)]), false)
        }
        Mount::Config(m) => {
            let target = place(m.target.as_ref(), CONFIGS, m.name.as_str());
            ("configs", with([("source", text(&m.name)), ("target", target)]), false)
        }
        _ => return,
    };
    if read_only {
        long.set("read_only", Value::Bool(true));
    }
    let mut items = node.take(key).unwrap_or_default().items().to_vec();
    items.push(long);
    node.set(key, Value::List(items));
}
