//! What is implied, written out.

use crate::schema::count_all;
use crate::yaml::{Entry, Mapping, Node, Span, Value};

use super::Loader;
use super::paths::clean;

/// The key that stands for the extensions of a mapping whose keys are names.
const EXTENSIONS: &str = "#extensions";

/// Fills in what values have where a file does not say it, and drops what says no more than its
/// absence.
pub(super) fn defaults(root: &mut Node) {
    for (_, service) in root.get_mut("services").into_iter().flat_map(Node::entries_mut) {
        service_defaults(service);
    }
}

fn service_defaults(service: &mut Node) {
    for secret in service.get_mut("secrets").into_iter().flat_map(Node::items_mut) {
        if secret.get("target").is_none() {
            let target = format!("/run/secrets/{}", secret.str("source").unwrap_or_default());
            secret.set("target", Value::String(target));
        }
    }
    if let Some(build) = service.get_mut("build")
        && build.get("context").is_none()
    {
        build.set("context", Value::from("."));
    }
    let reservations = ["deploy", "resources", "reservations"];
    let mut at = Some(&mut *service);
    for key in reservations {
        at = at.and_then(|node| node.get_mut(key));
    }
    at.and_then(|r| r.get_mut("devices")).into_iter().flat_map(Node::items_mut).for_each(count_all);
    if let Some(Value::List(servers)) = service.get_mut("dns").map(|node| &mut node.value) {
        servers.retain(|server| server.as_str() != Some(""));
    }
    if let Some(networks) = service.get_mut("networks").and_then(Node::as_map_mut) {
        // A key that begins with `x-` is an extension of the mapping, and no network.
        let before = networks.len();
        networks.retain(|name, _| !name.starts_with("x-"));
        if networks.len() < before {
            let node = Node::new(Value::Map(Mapping::new()), Span::default());
            networks.insert(EXTENSIONS.into(), Entry { key: node.span, node });
        }
    }
    for file in service.get_mut("env_file").into_iter().flat_map(Node::items_mut) {
        drop_where(file, "required", true);
    }
    for (_, dependency) in service.get_mut("depends_on").into_iter().flat_map(Node::entries_mut) {
        drop_where(dependency, "restart", false);
    }
    for volume in service.get_mut("volumes").into_iter().flat_map(Node::items_mut) {
        if let Some(bind) = volume.get_mut("bind") {
            drop_where(bind, "create_host_path", true);
        }
    }
    unique(service);
}

fn drop_where(node: &mut Node, key: &str, value: bool) {
    if node.get(key).and_then(Node::as_bool) == Some(value) {
        node.take(key);
    }
}

/// Of several values for the same thing, the last one counts, at the place of the first.
fn unique(service: &mut Node) {
    let text = |node: &Node| node.as_str().unwrap_or_default().to_owned();
    let field =
        |node: &Node, key: &str| node.get(key).and_then(Node::scalar_text).unwrap_or_default();
    for key in [
        "cap_add",
        "cap_drop",
        "dns",
        "dns_opt",
        "dns_search",
        "expose",
        "links",
        "profiles",
        "tmpfs",
    ] {
        keep_last(service.get_mut(key), text);
    }
    keep_last(service.get_mut("build").and_then(|build| build.get_mut("tags")), text);
    keep_last(service.get_mut("env_file"), |n| field(n, "path"));
    keep_last(service.get_mut("devices"), |n| field(n, "target"));
    keep_last(service.get_mut("volumes"), |n| field(n, "target"));
    keep_last(service.get_mut("secrets"), |n| field(n, "target"));
    keep_last(service.get_mut("configs"), |n| match field(n, "target") {
        target if target.is_empty() => format!("/{}", field(n, "source")),
        target => target,
    });
    keep_last(service.get_mut("ports"), |n| {
        let parts = ["host_ip", "published", "target", "protocol"].map(|key| field(n, key));
        parts.join(" ")
    });
    for (_, network) in service.get_mut("networks").into_iter().flat_map(Node::entries_mut) {
        keep_last(network.get_mut("aliases"), text);
        keep_last(network.get_mut("link_local_ips"), text);
    }
}

fn keep_last(list: Option<&mut Node>, key: impl Fn(&Node) -> String) {
    let Some(Value::List(items)) = list.map(|node| &mut node.value) else { return };
    let mut kept: indexmap::IndexMap<String, Node> = indexmap::IndexMap::new();
    for item in items.drain(..) {
        kept.insert(key(&item), item);
    }
    items.extend(kept.into_values());
}

/// A number of instances that is stated as `scale` is that of `deploy` too, where there is one.
pub(super) fn replicas(root: &mut Node) {
    for (_, service) in root.get_mut("services").into_iter().flat_map(Node::entries_mut) {
        let scale = service.get("scale").cloned();
        if let (Some(scale), Some(deploy)) = (scale, service.get_mut("deploy"))
            && deploy.get("replicas").is_none()
        {
            deploy.put("replicas", scale);
        }
    }
}

impl Loader<'_> {
    /// Takes apart the `external: {name: …}` of old files.
    pub(super) fn lift_external(&mut self, root: &mut Node) {
        for section in ["networks", "volumes", "secrets", "configs"] {
            for (key, item) in root.get_mut(section).into_iter().flat_map(Node::entries_mut) {
                let Some(external) = item.get("external") else { continue };
                if external.as_map().is_none() {
                    continue;
                }
                let (span, named) = (external.span, external.get("name").cloned());
                let known = |key: &str| key == "name" || key.starts_with("x-");
                if let Some((other, _)) = external.entries().find(|(other, _)| !known(other))
                    && ["networks", "volumes"].contains(&section)
                {
                    let what = format!("`{other}` is not a key here");
                    self.problem(span, &format!("{section}.{key}.external"), what);
                }
                if let Some(name) = named {
                    if item.get("name").is_some_and(|own| *own != name) {
                        let what = "`name` and `external.name` are both there; write `name` alone";
                        self.problem(span, &format!("{section}.{key}"), what);
                    }
                    item.set("name", name.value);
                }
                item.set("external", Value::Bool(true));
            }
        }
    }

    pub(super) fn normalize(&mut self, project: &str, root: &mut Node) {
        let mut default_used = false;
        let all = root.get_mut("services");
        for (_, service) in all.into_iter().flat_map(Node::entries_mut) {
            if service.str("pull_policy") == Some("if_not_present") {
                service.set("pull_policy", Value::from("missing"));
            }
            if let Some(build) = service.get_mut("build")
                && build.get("dockerfile").is_none()
                && build.get("dockerfile_inline").is_none()
            {
                build.set("dockerfile", Value::from("Dockerfile"));
            }
            let image = service.get("image").cloned();
            for hook in service.get_mut("pre_start").into_iter().flat_map(Node::items_mut) {
                if let Some(image) = image.as_ref().filter(|_| hook.get("image").is_none()) {
                    hook.set("image", image.value.clone());
                }
            }
            for volume in service.get_mut("volumes").into_iter().flat_map(Node::items_mut) {
                if let Some(target) = volume.str("target").map(clean) {
                    volume.set("target", Value::String(target));
                }
            }
            implied_dependencies(service);
            if service.get("provider").is_none() && service.get("network_mode").is_none() {
                let networks = service.get("networks").and_then(Node::as_map);
                if networks.is_none_or(Mapping::is_empty) {
                    let networks = service.map([("default", Value::Null)]);
                    service.set("networks", networks.value);
                }
                default_used |= service.get("networks").is_some_and(|n| n.get("default").is_some());
            }
        }
        if default_used {
            let nothing = root.map([]);
            if root.get("networks").is_none() {
                root.set("networks", nothing.value.clone());
            }
            if let Some(networks) = root.get_mut("networks")
                && networks.get("default").is_none()
            {
                networks.set("default", nothing.value);
            }
        }
        for section in ["networks", "volumes", "secrets", "configs"] {
            for (key, item) in root.get_mut(section).into_iter().flat_map(Node::entries_mut) {
                if item.get("name").is_none() {
                    let external = item.get("external").and_then(Node::as_bool) == Some(true);
                    let name = if external { key.to_owned() } else { format!("{project}_{key}") };
                    item.set("name", Value::String(name));
                }
            }
        }
    }
}

/// Links, shared namespaces and volumes of other services are dependencies too.
fn implied_dependencies(service: &mut Node) {
    let mut implied: Vec<(String, bool, Span)> = Vec::new();
    for link in service.get("links").map(Node::items).unwrap_or_default() {
        let target = link.as_str().and_then(|text| text.split(':').next());
        implied.extend(target.map(|target| (target.to_owned(), true, link.span)));
    }
    for space in ["network_mode", "ipc", "pid", "uts", "cgroup"] {
        let node = service.get(space);
        let target = node.and_then(Node::as_str).and_then(|text| text.strip_prefix("service:"));
        if let (Some(target), Some(node)) = (target, node) {
            implied.push((target.to_owned(), true, node.span));
        }
    }
    for from in service.get("volumes_from").map(Node::items).unwrap_or_default() {
        let text = from.as_str().unwrap_or_default();
        if let Some(target) = text.split(':').next().filter(|_| !text.starts_with("container:")) {
            implied.push((target.to_owned(), false, from.span));
        }
    }
    if implied.is_empty() {
        return;
    }
    let mut dependencies = service.take("depends_on").unwrap_or_else(|| service.map([]));
    for (name, restart, span) in implied {
        if dependencies.get(&name).is_some() {
            continue;
        }
        let node = Node::new(Value::Null, span);
        let mut dependency = node
            .map([("condition", Value::from("service_started")), ("required", Value::Bool(true))]);
        if restart {
            dependency.set("restart", Value::Bool(true));
        }
        if let Some(map) = dependencies.as_map_mut() {
            map.insert(name, Entry { key: span, node: dependency });
        }
    }
    service.put("depends_on", dependencies);
}
