//! What holds for services alone.

use std::collections::BTreeMap;

use super::Check;
use crate::model::text::Path;
use crate::model::{
    CanaryStep, Check as Question, EndpointMode, Protocol, Publish, Replicas, Route, Service,
    Strategy,
};

/// Whether more than one instance may run at a time, while updating too.
fn several(service: &Service) -> bool {
    let wanted = match service.replicas {
        Replicas::Fixed(n) => n > 1,
        Replicas::Autoscale(scale) => scale.max > 1,
        // One on each node; each has ports of its own.
        Replicas::Global => false,
    };
    wanted || starts_first(service)
}

/// Whether an update starts a new instance beside the old one.
fn starts_first(service: &Service) -> bool {
    match &service.update.strategy {
        Strategy::Rolling(rolling) => rolling.surge > 0,
        Strategy::Recreate => false,
        Strategy::BlueGreen | Strategy::Canary(_) => true,
    }
}

impl Check<'_> {
    pub(super) fn ports(&mut self, path: &Path, service: &Service) {
        let headless = service.endpoint_mode == EndpointMode::Dnsrr;
        if headless && service.ports.is_empty() {
            let what = "it has no port that its name could lead to";
            self.add(path.field("endpoint_mode"), what, "declare one under ports, or remove it");
        }
        let mut numbers = BTreeMap::new();
        let mut names = BTreeMap::new();
        for (index, port) in service.ports.iter().enumerate() {
            let path = path.field("ports").index(index);
            if port.port == 0 {
                self.add(path.field("port"), "0 is no port", "use 1 to 65535");
            }
            let datagrams = port.protocol == Protocol::Udp;
            if let Some(first) = numbers.insert((port.port, datagrams), index) {
                let what = format!("port {} is there twice, in ports[{first}] too", port.port);
                self.add(path.field("port"), what, "declare each port once");
            }
            if let Some(name) = &port.name
                && let Some(first) = names.insert(name, index)
            {
                let what = format!("the name `{name}` is there twice, in ports[{first}] too");
                self.add(path.field("name"), what, "give each its own name");
            }
            if headless && port.publish != Publish::Internal {
                let what = "its name leads to each instance, and a published port to any of them";
                let fix = "publish it by another service, or remove `endpoint_mode: dnsrr`";
                self.add(path.field("publish"), what, fix);
            }
            match &port.publish {
                Publish::Internal | Publish::Public => {}
                Publish::HostPort(0) => {
                    let fix = "use 1 to 65535, or `public` for one of the backend's choice";
                    self.add(path.field("publish").field("host_port"), "0 is no port", fix);
                }
                // HTTP and TCP are balanced: the proxy owns the host's port, and any number of
                // instances may stand behind it. Nothing balances datagrams: the instance itself
                // owns the port, and two cannot.
                Publish::HostPort(host_port) if datagrams && several(service) => {
                    let what = format!(
                        "replicas cannot share the host's UDP port {host_port}: datagrams are not balanced"
                    );
                    let fix = "use 1 replica and `update: {strategy: recreate}`, or no host port";
                    self.add(path.field("publish").field("host_port"), what, fix);
                }
                Publish::HostPort(_) => {}
                Publish::Route(route) => {
                    let path = path.field("publish").field("route");
                    self.route(&path, route, port.protocol);
                }
            }
        }
    }

    fn route(&mut self, path: &Path, route: &Route, protocol: Protocol) {
        if protocol != Protocol::Http {
            let what = "routes are for HTTP, and the port does not speak it";
            self.add(path.clone(), what, "write `protocol: http`");
        }
        let label = |label: &str| {
            !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
        };
        let host = route.host.strip_prefix("*.").unwrap_or(&route.host);
        if host.len() > 253 || !host.split('.').all(label) {
            let what = format!("`{}` is no host name", route.host);
            self.add(path.field("host"), what, "write it like www.example.org");
        }
        if !route.path.starts_with('/') || route.path.contains(|c: char| c.is_control() || c == ' ')
        {
            let what = format!("`{}` is no path of a URL", route.path);
            self.add(path.field("path"), what, "begin it with `/`");
        }
        if let Some(secret) = route.tls.as_ref().filter(|s| !self.app.secrets.contains_key(*s)) {
            let fix = "declare it under `secrets:`";
            self.add(path.field("tls"), format!("no secret `{secret}` is declared"), fix);
        }
    }

    pub(super) fn probes(&mut self, path: &Path, service: &Service) {
        for (kind, probe) in service.probes.iter() {
            let path = path.field("probes").field(kind);
            self.duration(path.field("interval"), probe.interval, false);
            self.duration(path.field("timeout"), probe.timeout, false);
            self.duration(path.field("initial_delay"), probe.initial_delay, true);
            if probe.failure_threshold == 0 {
                self.add(
                    path.field("failure_threshold"),
                    "0 failures would fail it",
                    "use 1 or more",
                );
            }
            if probe.success_threshold == 0 {
                self.add(
                    path.field("success_threshold"),
                    "0 successes would pass it",
                    "use 1 or more",
                );
            }
            let at = path.field("check").field(probe.check.kind());
            match &probe.check {
                Question::Http(check) => {
                    if !check.path.starts_with('/') {
                        let what = format!("`{}` does not begin with `/`", check.path);
                        self.add(at.field("path"), what, "write it like /healthz");
                    } else if check.path.contains(|c: char| c.is_control() || c == ' ') {
                        let what = "the path has spaces or control characters";
                        self.add(at.field("path"), what, "write them as %20 and so on");
                    }
                    for (name, value) in &check.headers {
                        if !is_header(name, value) {
                            let what = "it is no header of HTTP";
                            self.add(
                                at.field("headers").field(name),
                                what,
                                "write it like X-Name: value",
                            );
                        }
                    }
                }
                Question::Exec(check) => {
                    let command = &check.command;
                    if command.first().is_none_or(String::is_empty) {
                        self.add(at.field("command"), "there is no command", "name a program");
                    } else if command.iter().any(|text| text.contains('\0')) {
                        self.add(at.field("command"), "it has a NUL character", "remove it");
                    }
                    continue;
                }
                Question::Tcp(_) | Question::Grpc(_) => {}
            }
            self.probed_port(&at, probe.check.port(), service);
        }
    }

    fn probed_port(&mut self, path: &Path, port: Option<u16>, service: &Service) {
        let stream = |p: &&crate::model::Port| p.protocol != Protocol::Udp;
        let declared: Vec<u16> = service.ports.iter().filter(stream).map(|p| p.port).collect();
        match port {
            Some(port) if !declared.contains(&port) => {
                let fix = match declared.as_slice() {
                    [] => format!("declare it: `ports: [{{port: {port}}}]`"),
                    list => {
                        let list: Vec<String> = list.iter().map(u16::to_string).collect();
                        format!("declare it under ports, or use one of: {}", list.join(", "))
                    }
                };
                self.add(path.field("port"), format!("port {port} is not declared"), fix);
            }
            None if service.ports.is_empty() => {
                let what = "there is no port to ask: the service declares none";
                self.add(path.clone(), what, "declare one under ports, or use an exec probe");
            }
            None if service.ports.first().is_some_and(|p| p.protocol == Protocol::Udp) => {
                let what = "the service's first port takes datagrams, and cannot be asked";
                self.add(path.clone(), what, "name another of its ports, or use an exec probe");
            }
            _ => {}
        }
    }

    pub(super) fn replicas(&mut self, path: &Path, service: &Service) {
        let Replicas::Autoscale(scale) = service.replicas else { return };
        let path = path.field("replicas").field("autoscale");
        if scale.min == 0 {
            self.add(path.field("min"), "0 instances have no load to go by", "use 1 or more");
        }
        if scale.min > scale.max {
            let what = format!("at least {} is more than at most {}", scale.min, scale.max);
            self.add(path.field("min"), what, "make max the larger one");
        }
    }

    pub(super) fn update(&mut self, path: &Path, service: &Service) {
        let update = &service.update;
        let path = &path.field("update");
        self.duration(path.field("progress_deadline"), update.progress_deadline, false);
        self.duration(path.field("monitor"), update.monitor, true);
        if !update.progress_deadline.is_zero() && update.progress_deadline <= update.monitor {
            let what = "it passes before an instance has been ready for the monitor time";
            self.add(path.field("progress_deadline"), what, "make it longer than monitor");
        }
        let strategy = path.field("strategy");
        match &update.strategy {
            Strategy::Rolling(rolling) => {
                let at = strategy.field("rolling");
                if rolling.surge == 0 && rolling.unavailable == 0 {
                    let what = "with surge 0 and unavailable 0, no instance could be replaced";
                    self.add(at.clone(), what, "make one of them 1 or more");
                }
                if let Replicas::Fixed(n) = service.replicas
                    && n > 0
                    && rolling.unavailable > n
                {
                    let what = format!("{} is more than the {n} there are", rolling.unavailable);
                    self.add(at.field("unavailable"), what, "use at most replicas");
                }
            }
            Strategy::Canary(steps) => self.canary(&strategy.field("canary"), steps, service),
            Strategy::Recreate | Strategy::BlueGreen => {}
        }
        if starts_first(service) {
            for (_, volume) in self.per_replica(&service.mounts) {
                let what = format!(
                    "volume `{volume}` is one for each replica: a new instance cannot start while the old one has it"
                );
                let fix = "use `strategy: {rolling: {surge: 0, unavailable: 1}}` or `recreate`";
                self.add(strategy.clone(), what, fix);
            }
        }
    }

    fn canary(&mut self, path: &Path, steps: &[CanaryStep], service: &Service) {
        if steps.is_empty() {
            let fix = "give steps like [{share: 25%, hold: 1m}], or use rolling";
            self.add(path.clone(), "there is no step", fix);
        }
        let mut last = 0;
        for (index, step) in steps.iter().enumerate() {
            let at = path.index(index);
            self.duration(at.field("hold"), step.hold, true);
            if step.share.get() <= last {
                let what = format!("{} is no more than the {last}% before", step.share);
                self.add(at.field("share"), what, "let the shares grow");
            }
            last = step.share.get();
            let Replicas::Fixed(n) = service.replicas else { continue };
            if step.share.of(n).is_none() {
                let whole =
                    |p: &u8| crate::model::Percent::new(*p).is_some_and(|p| p.of(n).is_some());
                let shares: Vec<String> =
                    (1..=100).filter(whole).map(|p| format!("{p}%")).collect();
                let what = format!("{} of {n} instances is no whole number", step.share);
                self.add(at.field("share"), what, format!("use one of: {}", shares.join(", ")));
            }
        }
        if !matches!(service.replicas, Replicas::Fixed(_)) {
            let what = format!(
                "canary steps are shares of a fixed number, and replicas are {}",
                service.replicas
            );
            self.add(path.clone(), what, "use a number of replicas, or rolling");
        }
    }
}

/// [RFC 9110 5.1 and 5.5](https://www.rfc-editor.org/rfc/rfc9110#section-5).
fn is_header(name: &str, value: &str) -> bool {
    let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    let text = |c: char| c == '\t' || !c.is_control();
    !name.is_empty() && name.chars().all(token) && value.chars().all(text)
}
