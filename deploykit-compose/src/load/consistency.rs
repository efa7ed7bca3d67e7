//! What has to fit together.

use std::collections::HashMap;

use crate::app::BINARY;
use crate::diagnostic::Diagnostic;
use crate::schema::{MOST_PROBLEMS, nearest};
use crate::yaml::{Mapping, Node};

use super::Loader;

fn children(node: Option<&Node>) -> impl Iterator<Item = (&str, &Node)> {
    node.into_iter().flat_map(Node::entries)
}

fn items<'a>(node: &'a Node, key: &str) -> &'a [Node] {
    node.get(key).map(Node::items).unwrap_or_default()
}

impl Loader<'_> {
    /// What holds for single values, whatever else there is.
    pub(super) fn check_values(&mut self, root: &Node) {
        for (name, volume) in children(root.get("volumes")) {
            if volume.get("external").and_then(Node::as_bool) != Some(true) {
                continue;
            }
            let other = |key: &str| !["name", "external"].contains(&key) && !key.starts_with("x-");
            if let Some((key, node)) = volume.entries().find(|(key, _)| other(key)) {
                let what = format!("an external volume cannot have `{key}`");
                self.problem(node.span, &format!("volumes.{name}"), what);
            }
        }
        let contents = [
            ("configs", &["file", "environment", "content"][..]),
            ("secrets", &["file", "environment"]),
        ];
        for (section, keys) in contents {
            for (name, item) in children(root.get(section)) {
                let there = keys.iter().filter(|key| item.get(key).is_some()).count();
                let other = item.get("external").is_some() || item.get("driver").is_some();
                if there > 1 || (there == 0 && !other) {
                    let what = format!("exactly one of {} has to be there", keys.join(", "));
                    self.problem(item.span, &format!("{section}.{name}"), what);
                }
            }
        }
        for (name, service) in children(root.get("services")) {
            self.check_service_values(&format!("services.{name}"), service);
        }
    }

    fn check_service_values(&mut self, path: &str, service: &Node) {
        for volume in items(service, "volumes") {
            if volume.str("type") == Some("bind") && volume.get("source").is_none() {
                self.problem(
                    volume.span,
                    &format!("{path}.volumes"),
                    "a bind mount needs a `source`",
                );
            }
            if volume.get("target").is_none() {
                self.problem(volume.span, &format!("{path}.volumes"), "a mount needs a `target`");
            }
        }
        for port in items(service, "ports") {
            if let Some(ip) = port.get("host_ip")
                && ip.as_str().is_none_or(|text| text.parse::<std::net::IpAddr>().is_err())
            {
                self.problem(ip.span, &format!("{path}.ports"), "this is not an IP address");
            }
        }
        for watch in service.get("develop").map(|d| items(d, "watch")).unwrap_or_default() {
            if watch.str("path") == Some("") {
                self.problem(watch.span, &format!("{path}.develop.watch"), "the `path` is empty");
            }
        }
        let reserved = service.get("deploy").and_then(|d| d.get("resources")?.get("reservations"));
        let requests = reserved.map(|r| items(r, "devices")).unwrap_or_default();
        for request in requests.iter().chain(items(service, "gpus")) {
            if request.get("count").is_some() && request.get("device_ids").is_some() {
                let what = "`count` and `device_ids` exclude each other";
                self.problem(request.span, path, what);
            }
        }
    }

    /// What holds between the parts of a project.
    pub(super) fn check_consistency(&mut self, root: &Node, disabled: &Mapping) {
        for (name, service) in children(root.get("services")) {
            let path = format!("services.{name}");
            self.check_references(root, &path, service, disabled);
            self.check_build_contexts(root, &path, service);
            self.check_alternatives(&path, service);
            self.check_amounts(&path, service);
        }
        for (name, secret) in children(root.get("secrets")) {
            let external = secret.get("external").and_then(Node::as_bool) == Some(true);
            if !external && secret.get("file").is_none() && secret.get("environment").is_none() {
                let what = "a secret needs a `file` or an `environment`";
                self.problem(secret.span, &format!("secrets.{name}"), what);
            }
        }
        self.check_cycles(root);
    }

    /// Every name that a service uses is declared.
    fn check_references(&mut self, root: &Node, path: &str, service: &Node, disabled: &Mapping) {
        let mut uses: Vec<(&str, &str, &Node)> = Vec::new();
        for (section, key) in [("networks", "networks"), ("models", "models")] {
            uses.extend(children(service.get(key)).map(|(name, node)| (section, name, node)));
        }
        // Where what is implied is not written out, the default network is there all the same.
        uses.retain(|(section, name, _)| {
            self.options.normalize || (*section, *name) != ("networks", "default")
        });
        for (name, node) in children(service.get("depends_on")) {
            let optional = node.get("required").and_then(Node::as_bool) == Some(false);
            if !(optional && disabled.contains_key(name)) {
                uses.push(("services", name, node));
            }
        }
        if let Some(mode) = service.get("network_mode")
            && let Some(name) = mode.as_str().and_then(|text| text.strip_prefix("service:"))
        {
            uses.push(("services", name, mode));
        }
        for volume in items(service, "volumes").iter().filter(|v| v.str("type") == Some("volume")) {
            uses.extend(volume.str("source").map(|source| ("volumes", source, volume)));
        }
        let build = service.get("build");
        let build_secrets = build.map(|b| items(b, "secrets")).unwrap_or_default();
        for secret in items(service, "secrets").iter().chain(build_secrets) {
            uses.push(("secrets", secret.str("source").unwrap_or_default(), secret));
        }
        for config in items(service, "configs") {
            uses.push(("configs", config.str("source").unwrap_or_default(), config));
        }
        for (section, name, node) in uses {
            let declared = root.get(section);
            if declared.is_some_and(|d| d.as_map().is_none()) {
                continue; // What is wrong with all of them has been told.
            }
            if declared.is_none_or(|d| d.get(name).is_none()) {
                let what = format!("`{name}` is not among the {section}");
                let near = nearest(name, children(declared).map(|(name, _)| name));
                let fix = near.map(|near| format!("do you mean `{near}`?")).unwrap_or_default();
                if self.problems.len() < MOST_PROBLEMS {
                    self.problems.push(Diagnostic::new(node.span, path, what).fix(fix));
                }
            }
        }
    }

    /// What a build takes from another service is built.
    fn check_build_contexts(&mut self, root: &Node, path: &str, service: &Node) {
        let contexts = service.get("build").and_then(|build| build.get("additional_contexts"));
        for (_, node) in children(contexts) {
            let target = node.as_str().and_then(|text| text.strip_prefix("service:"));
            let Some(target) = target else { continue };
            let builds = root.get("services").and_then(|s| s.get(target)?.get("build"));
            if builds.is_none() {
                let what = format!("`{target}` is not a service with a `build`");
                self.problem(node.span, &format!("{path}.build.additional_contexts"), what);
            }
        }
    }

    /// Amounts that can be stated in two places are the same in both.
    fn check_amounts(&mut self, path: &str, service: &Node) {
        let replicas = service.get("deploy").and_then(|d| d.get("replicas"));
        for count in [service.get("scale"), replicas].into_iter().flatten() {
            if count.as_int().is_some_and(|n| n < 0) {
                self.problem(count.span, path, "this is not a number of instances");
            }
        }
        let resources = service.get("deploy").and_then(|d| d.get("resources"));
        for (key, section, other) in [
            ("cpus", "limits", "cpus"),
            ("mem_limit", "limits", "memory"),
            ("mem_reservation", "reservations", "memory"),
            ("pids_limit", "limits", "pids"),
        ] {
            let Some(own) = service.get(key) else { continue };
            let Some(section_node) = resources.and_then(|r| r.get(section)) else { continue };
            let amount = |node: &Node| node.scalar_text().and_then(|text| text.parse::<f32>().ok());
            if section_node.get(other).and_then(amount) != amount(own) {
                let what = format!("`{key}` and `deploy.resources.{section}.{other}` differ");
                self.problem(own.span, path, what);
            }
        }
        for watch in service.get("develop").map(|d| items(d, "watch")).unwrap_or_default() {
            let alone = matches!(watch.str("action"), Some("rebuild" | "restart"));
            if !alone && watch.get("target").is_none() {
                let what = "this action needs a `target`";
                self.problem(watch.span, &format!("{path}.develop.watch"), what);
            }
        }
    }

    /// Fields that exclude each other, or need each other.
    fn check_alternatives(&mut self, path: &str, service: &Node) {
        let has = |key: &str| service.get(key).is_some();
        if !has("image") && !has("build") && !has("provider") && !has(BINARY) {
            self.problem(service.span, path, "a service needs an `image` or a `build`");
        }
        if let Some(mode) = service.get("network_mode")
            && has("networks")
        {
            self.problem(mode.span, path, "`network_mode` and `networks` exclude each other");
        }
        if let Some(build) = service.get("build")
            && let Some(inline) = build.get("dockerfile_inline")
            && build.get("dockerfile").is_some()
        {
            self.problem(
                inline.span,
                path,
                "`dockerfile` and `dockerfile_inline` exclude each other",
            );
        }
        let platforms = service.get("build").map(|b| items(b, "platforms")).unwrap_or_default();
        if let Some(platform) = service.get("platform")
            && !platforms.is_empty()
            && !platforms.contains(platform)
        {
            self.problem(platform.span, path, "the `platform` is none of those that are built");
        }
        if let Some(test) = service.get("healthcheck").and_then(|h| h.get("test"))
            && let Some(word) = test.items().first()
            && !["CMD", "CMD-SHELL", "NONE"].contains(&word.as_str().unwrap_or_default())
        {
            let what = "a list begins with CMD, CMD-SHELL or NONE";
            self.problem(word.span, &format!("{path}.healthcheck.test"), what);
        }
        let replicas = service.get("deploy").and_then(|d| d.get("replicas"));
        if let (Some(scale), Some(replicas)) = (service.get("scale"), replicas)
            && scale != replicas
        {
            self.problem(scale.span, path, "`scale` and `deploy.replicas` differ");
        }
        let many = service.get("scale").or(replicas).and_then(Node::as_int).unwrap_or(1) > 1;
        if let Some(name) = service.get("container_name").filter(|_| many) {
            self.problem(name.span, path, "several instances cannot have one `container_name`");
        }
        let mut targets: HashMap<&str, ()> = HashMap::new();
        let tmpfs = items(service, "tmpfs")
            .iter()
            .filter_map(|n| Some((n.as_str()?.split(':').next()?, n)));
        let volumes = items(service, "volumes").iter().filter_map(|n| Some((n.str("target")?, n)));
        for (target, node) in tmpfs.chain(volumes) {
            if targets.insert(target, ()).is_some() {
                self.problem(node.span, path, format!("something is mounted at {target} already"));
            }
        }
    }

    /// No service depends on itself, directly or by others.
    fn check_cycles(&mut self, root: &Node) {
        let services = root.get("services");
        let mut done: HashMap<&str, bool> = HashMap::new();
        for (name, _) in children(services) {
            let mut trail: Vec<&str> = Vec::new();
            let mut open: Vec<(&str, usize)> = vec![(name, 0)];
            while let Some((at, depth)) = open.pop() {
                for left in trail.drain(depth..) {
                    done.insert(left, true);
                }
                if let Some(start) = trail.iter().position(|seen| *seen == at) {
                    let names = trail[start..].join(" -> ");
                    let node = services.and_then(|s| s.get(at)).unwrap_or(root);
                    let what = format!("the services depend on each other: {names} -> {at}");
                    self.problem(node.span, &format!("services.{at}"), what);
                    return;
                }
                if done.contains_key(at) {
                    continue;
                }
                trail.push(at);
                let service = services.and_then(|s| s.get(at));
                let next = children(service.and_then(|s| s.get("depends_on")));
                open.extend(next.map(|(name, _)| (name, depth + 1)));
            }
            done.extend(trail.drain(..).map(|left| (left, true)));
        }
    }
}
