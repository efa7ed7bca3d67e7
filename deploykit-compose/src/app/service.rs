//! Services.

use std::time::Duration;

use deploykit_core::model::{
    Check, EndpointMode, ExecCheck, OnFailure, Port, Probe, Probes, Protocol, Publish, Replicas,
    RestartPolicy, Rolling, Service, Strategy, Update,
};

use crate::yaml::Node;

use super::Converter;
use super::fields::{common, deploy, duration, texts};

/// The times of a health check that does not state them.
const HEALTH_SECONDS: Duration = Duration::from_secs(30);

impl Converter<'_> {
    pub(super) fn service(&mut self, node: &Node, path: &str) -> Option<Service> {
        let mut service = Service::new(self.image(node, path)?);
        common!(&mut *self, service, node, path);
        service.ports = self.ports(node, path);
        service.endpoint_mode = self.endpoint_mode(node, path);
        service.probes = self.probes(node);
        service.replicas = self.replicas(node, path);
        service.restart = self.restart(node, path);
        service.update = self.update(node, path);
        let alone = |port: &Port| {
            port.protocol == Protocol::Udp && matches!(port.publish, Publish::HostPort(_))
        };
        if deploy(node, &["update_config"]).is_none() && service.ports.iter().any(alone) {
            // Datagrams at a port of the host reach one instance: the old one goes first.
            service.update = Update::recreate();
        }
        Some(service)
    }

    fn endpoint_mode(&mut self, node: &Node, path: &str) -> EndpointMode {
        let Some(mode) = deploy(node, &["endpoint_mode"]) else { return EndpointMode::Vip };
        match mode.as_str() {
            Some("vip") => EndpointMode::Vip,
            Some("dnsrr") => EndpointMode::Dnsrr,
            _ => {
                self.problem(mode.span, path, "the endpoint mode is neither vip nor dnsrr");
                EndpointMode::Vip
            }
        }
    }

    fn replicas(&mut self, node: &Node, path: &str) -> Replicas {
        match deploy(node, &["mode"]) {
            None => {}
            Some(mode) => match mode.as_str() {
                Some("replicated") => {}
                Some("global") => return Replicas::Global,
                _ => self.problem(
                    mode.span,
                    path,
                    "the mode is not replicated, global or replicated-job",
                ),
            },
        }
        let stated = deploy(node, &["replicas"]).or_else(|| node.get("scale"));
        match stated.map(|n| (n, n.as_int().and_then(|n| u32::try_from(n).ok()))) {
            None => Replicas::default(),
            Some((_, Some(number))) => Replicas::Fixed(number),
            Some((node, None)) => {
                self.problem(node.span, path, "this is not a number of replicas");
                Replicas::default()
            }
        }
    }

    /// Without a word on it Compose starts nothing again, and a swarm always.
    fn restart(&mut self, node: &Node, path: &str) -> RestartPolicy {
        if let Some(condition) = deploy(node, &["restart_policy", "condition"]) {
            return match condition.as_str() {
                Some("none") => RestartPolicy::Never,
                Some("on-failure") => RestartPolicy::OnFailure,
                Some("any") => RestartPolicy::Always,
                _ => {
                    self.problem(condition.span, path, "this is not one of none, on-failure, any");
                    RestartPolicy::Always
                }
            };
        }
        let Some(restart) = node.get("restart") else {
            return if node.get("deploy").is_some() {
                RestartPolicy::Always
            } else {
                RestartPolicy::Never
            };
        };
        match restart.as_str() {
            Some("no") => RestartPolicy::Never,
            Some("on-failure") => RestartPolicy::OnFailure,
            Some("always" | "unless-stopped") => RestartPolicy::Always,
            _ => {
                let what = "this is not one of no, on-failure, always, unless-stopped; a service is \
                            started again without a limit";
                self.problem(restart.span, path, what);
                RestartPolicy::Always
            }
        }
    }

    /// A health check is the readiness probe; within its start period it may fail.
    fn probes(&mut self, node: &Node) -> Probes {
        let mut probes = Probes::default();
        let Some(health) = node.get("healthcheck") else { return probes };
        let test = texts(health.get("test"));
        let command: Vec<String> = match test.split_first() {
            Some((first, rest)) if first == "CMD" => rest.to_vec(),
            Some((first, rest)) if first == "CMD-SHELL" => {
                ["/bin/sh", "-c"].into_iter().map(str::to_owned).chain([rest.join(" ")]).collect()
            }
            _ => return probes,
        };
        if command.is_empty() || health.get("disable").and_then(Node::as_bool) == Some(true) {
            return probes;
        }
        let mut probe = Probe::new(Check::Exec(ExecCheck { command }));
        probe.interval =
            duration(health.get("interval")).filter(|d| !d.is_zero()).unwrap_or(HEALTH_SECONDS);
        probe.timeout =
            duration(health.get("timeout")).filter(|d| !d.is_zero()).unwrap_or(HEALTH_SECONDS);
        let retries = health.get("retries").and_then(Node::as_int).filter(|n| *n > 0);
        probe.failure_threshold = retries.and_then(|n| u32::try_from(n).ok()).unwrap_or(3);
        if let Some(start) = duration(health.get("start_period")).filter(|d| !d.is_zero()) {
            let more = start.as_millis().div_ceil(probe.interval.as_millis().max(1));
            let mut startup = probe.clone();
            startup.failure_threshold =
                startup.failure_threshold.saturating_add(u32::try_from(more).unwrap_or(u32::MAX));
            probes.startup = Some(startup);
        }
        probes.readiness = Some(probe);
        probes
    }

    fn update(&mut self, node: &Node, path: &str) -> Update {
        let mut update = Update::default();
        let Some(config) = deploy(node, &["update_config"]) else { return update };
        let parallelism = config.get("parallelism").and_then(Node::as_int).unwrap_or(1);
        let start_first = config.str("order") == Some("start-first");
        update.strategy = match (u32::try_from(parallelism), start_first) {
            (Ok(0), false) => Strategy::Recreate,
            (Ok(0), true) => Strategy::BlueGreen,
            (Ok(n), true) => Strategy::Rolling(Rolling { surge: n, unavailable: 0 }),
            (Ok(n), false) => Strategy::Rolling(Rolling { surge: 0, unavailable: n }),
            (Err(_), _) => {
                self.problem(config.span, path, "`parallelism` is not a number of instances");
                Strategy::default()
            }
        };
        update.monitor = duration(config.get("monitor")).unwrap_or_default();
        update.on_failure = match config.get("failure_action") {
            None => OnFailure::Pause,
            Some(action) => match action.as_str() {
                Some("pause") => OnFailure::Pause,
                Some("continue") => OnFailure::Continue,
                Some("rollback") => OnFailure::RollBack,
                _ => {
                    self.problem(action.span, path, "this is not one of pause, continue, rollback");
                    OnFailure::default()
                }
            },
        };
        update
    }
}
