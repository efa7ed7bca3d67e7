//! The fields that services and jobs have in common.

use std::collections::{BTreeMap, BTreeSet};

use deploykit_core::model::{
    Bytes, Condition, Cpu, ImageRef, ImageSpec, NetworkName, Placement, Resources, ServiceName,
    Signal,
};

use crate::short::parse_duration;
use crate::yaml::Node;

use super::{BINARY, Converter};

/// The texts of a list.
pub(super) fn texts(node: Option<&Node>) -> Vec<String> {
    let items = node.map(Node::items).unwrap_or_default();
    items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect()
}

/// The texts of a mapping; what has no value is left out, as Compose does.
pub(super) fn pairs(node: Option<&Node>) -> BTreeMap<String, String> {
    let entries = node.into_iter().flat_map(Node::entries);
    entries.filter_map(|(name, node)| Some((name.to_owned(), node.as_str()?.to_owned()))).collect()
}

pub(super) fn number(node: &Node) -> Option<f64> {
    node.scalar_text()?.parse().ok()
}

pub(super) fn deploy<'a>(service: &'a Node, path: &[&str]) -> Option<&'a Node> {
    path.iter().try_fold(service.get("deploy")?, |node, key| node.get(key))
}

/// Sets the fields that the two types share.
macro_rules! common {
    ($converter:expr, $target:expr, $node:expr, $path:expr) => {{
        let (converter, target, node, path) = ($converter, &mut $target, $node, $path);
        target.command = crate::app::fields::texts(node.get("entrypoint"));
        target.args = crate::app::fields::texts(node.get("command"));
        target.env = crate::app::fields::pairs(node.get("environment"));
        target.labels = crate::app::fields::pairs(node.get("labels"));
        target.workdir = node.str("working_dir").map(Into::into);
        target.user = node.str("user").map(str::to_owned);
        target.resources = converter.resources(node, path);
        target.mounts = converter.mounts(node, path);
        target.depends_on = converter.dependencies(node, path);
        target.connects_to = converter.links(node, path);
        target.networks = converter.networks(node, path);
        target.placement = converter.placement(node, path);
        target.stop_signal = converter.stop_signal(node, path);
        let grace = node.str("stop_grace_period").and_then(crate::short::parse_duration);
        target.stop_grace = grace.unwrap_or(target.stop_grace);
    }};
}
pub(super) use common;

impl Converter<'_> {
    pub(super) fn image(&mut self, node: &Node, path: &str) -> Option<ImageSpec> {
        match node.get(BINARY).map(|binary| (binary.span, binary.as_str())) {
            None | Some((_, Some(""))) => {}
            Some((_, Some(file))) => {
                return Some(ImageSpec::binary(self.project.folder.join(file)));
            }
            Some((span, None)) => {
                self.problem(span, path, format!("`{BINARY}` is not a path"));
                return None;
            }
        }
        if let Some(build) = super::build::of(node) {
            return self.build(build, path);
        }
        let Some(image) = node.get("image") else {
            let what = format!("there is no `image` to run, and no `build`; or write `{BINARY}`");
            self.problem(node.span, path, what);
            return None;
        };
        let reference = ImageRef::new(image.as_str().unwrap_or_default());
        self.parsed(image, &format!("{path}.image"), reference).map(ImageSpec::Reference)
    }

    pub(super) fn resources(&mut self, node: &Node, path: &str) -> Resources {
        let limit = |key| deploy(node, &["resources", "limits", key]);
        let reserved = |key| deploy(node, &["resources", "reservations", key]);
        let cpu_limit = limit("cpus").or_else(|| node.get("cpus"));
        let memory_limit = limit("memory").or_else(|| node.get("mem_limit"));
        let memory_request = reserved("memory").or_else(|| node.get("mem_reservation"));
        Resources {
            cpu_limit: cpu_limit.and_then(|n| self.cpu(n, path)),
            memory_limit: memory_limit.and_then(|n| self.bytes(n, path)),
            cpu_request: reserved("cpus").and_then(|n| self.cpu(n, path)),
            memory_request: memory_request.and_then(|n| self.bytes(n, path)),
        }
    }

    fn cpu(&mut self, node: &Node, path: &str) -> Option<Cpu> {
        let millis = number(node).map(|cores| (cores * 1000.0).round());
        let cpu =
            millis.filter(|m| (0.0..=4_000_000.0).contains(m)).and_then(|m| Cpu::millis(m as u32));
        if cpu.is_none() {
            self.problem(node.span, path, "this is not an amount of CPU time from 0.001");
        }
        cpu
    }

    pub(super) fn bytes(&mut self, node: &Node, path: &str) -> Option<Bytes> {
        let bytes = node.as_str().and_then(|text| text.parse().ok()).and_then(Bytes::new);
        if bytes.is_none() {
            self.problem(node.span, path, "this is not an amount of bytes from 1");
        }
        bytes
    }

    pub(super) fn dependencies(
        &mut self,
        node: &Node,
        path: &str,
    ) -> BTreeMap<ServiceName, Condition> {
        let mut all = BTreeMap::new();
        let services = self.project.root().get("services");
        for (name, dependency) in node.get("depends_on").into_iter().flat_map(Node::entries) {
            let optional = dependency.get("required").and_then(Node::as_bool) == Some(false);
            if optional && services.is_none_or(|s| s.get(name).is_none()) {
                continue;
            }
            let condition = match dependency.str("condition") {
                Some("service_healthy") => Condition::Healthy,
                Some("service_completed_successfully") => Condition::Completed,
                _ => Condition::Started,
            };
            if let Some(name) = self.parsed(dependency, path, ServiceName::new(name)) {
                all.insert(name, condition);
            }
        }
        all
    }

    pub(super) fn links(&mut self, node: &Node, path: &str) -> BTreeSet<ServiceName> {
        let mut all = BTreeSet::new();
        for link in node.get("links").map(Node::items).unwrap_or_default() {
            let text = link.as_str().unwrap_or_default();
            let (name, alias) = text.split_once(':').unwrap_or((text, text));
            if name != alias {
                self.problem(
                    link.span,
                    path,
                    "a service is found by its own name, not by an alias",
                );
            }
            all.extend(self.parsed(link, path, ServiceName::new(name)));
        }
        all
    }

    pub(super) fn networks(&mut self, node: &Node, path: &str) -> BTreeSet<NetworkName> {
        let mut all = BTreeSet::new();
        for (name, network) in node.get("networks").into_iter().flat_map(Node::entries) {
            if name != "default" {
                all.extend(self.parsed(network, path, NetworkName::new(super::own_name(name))));
            }
        }
        all
    }

    pub(super) fn placement(&mut self, node: &Node, path: &str) -> Placement {
        let mut placement = Placement::default();
        let constraints = deploy(node, &["placement", "constraints"]);
        for constraint in constraints.map(Node::items).unwrap_or_default() {
            let text = constraint.as_str().unwrap_or_default();
            let parts = text.strip_prefix("node.labels.").and_then(|rest| rest.split_once("=="));
            match parts {
                Some((label, value)) => {
                    placement.constraints.insert(label.trim().into(), value.trim().into());
                }
                None => {
                    let what =
                        format!("`{text}` is not a node's label; write node.labels.NAME==VALUE");
                    self.problem(constraint.span, path, what);
                }
            }
        }
        let preferences =
            deploy(node, &["placement", "preferences"]).map(Node::items).unwrap_or_default();
        for preference in preferences {
            let label = preference.str("spread").and_then(|text| text.strip_prefix("node.labels."));
            match label {
                Some(label) if placement.spread.is_none() => placement.spread = Some(label.into()),
                _ => {
                    let what = "one spread is possible; write node.labels.NAME";
                    self.problem(preference.span, path, what);
                }
            }
        }
        placement
    }

    pub(super) fn stop_signal(&mut self, node: &Node, path: &str) -> Signal {
        let Some(signal) = node.get("stop_signal") else { return Signal::default() };
        match signal.as_str().map(|text| text.trim_start_matches("SIG")) {
            Some("TERM" | "15") => Signal::Term,
            Some("INT" | "2") => Signal::Int,
            Some("QUIT" | "3") => Signal::Quit,
            Some("HUP" | "1") => Signal::Hup,
            Some("USR1" | "10") => Signal::Usr1,
            Some("USR2" | "12") => Signal::Usr2,
            Some("KILL" | "9") => Signal::Kill,
            _ => {
                let what = "this is not one of SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2, SIGKILL";
                self.problem(signal.span, path, what);
                Signal::default()
            }
        }
    }
}

/// A duration of a node that has been checked to be one.
pub(super) fn duration(node: Option<&Node>) -> Option<std::time::Duration> {
    node.and_then(Node::as_str).and_then(parse_duration)
}
