//! From short forms to long ones.

use std::collections::BTreeMap;

use crate::load::clean;
use crate::merge::started;
use crate::short::{VolumeKind, parse_port, parse_volume};
use crate::yaml::{Entry, Mapping, Node, Span, Value};

type Converted = Result<(), (Span, String)>;

fn wrong(node: &Node, wanted: &str) -> Converted {
    Err((node.span, format!("{} is not {wanted}", node.kind())))
}

/// Nothing stands for a mapping without keys.
pub(super) fn something(node: &mut Node) -> Converted {
    if node.is_null() {
        node.value = Value::Map(Mapping::new());
    }
    Ok(())
}

/// One text stands for a list of it.
pub(super) fn one_or_several(node: &mut Node) -> Converted {
    if node.scalar_text().is_some() {
        node.value = Value::List(vec![node.clone()]);
    }
    Ok(())
}

fn text_as(node: &mut Node, key: &str) -> Converted {
    if let Some(text) = node.as_str() {
        *node = node.map([(key, Value::from(text))]);
    }
    Ok(())
}

/// Only a text will do.
pub(super) fn text(node: &mut Node) -> Converted {
    if node.as_str().is_some() { Ok(()) } else { wrong(node, "a text; put it in quotes") }
}

pub(super) fn build(node: &mut Node) -> Converted {
    text_as(node, "context")
}

pub(super) fn file_mount(node: &mut Node) -> Converted {
    text_as(node, "source")
}

pub(super) fn env_file(node: &mut Node) -> Converted {
    text_as(node, "path")
}

/// The `external: {name: …}` of old files has been taken apart before.
pub(super) fn external(_: &mut Node) -> Converted {
    Ok(())
}

fn list_as_map(node: &mut Node, value: fn(&Node) -> Value) -> Converted {
    let Value::List(items) = &node.value else { return Ok(()) };
    let mut map = Mapping::new();
    for item in items {
        let Some(name) = item.as_str() else { return wrong(item, "a name") };
        map.insert(name.into(), Entry { key: item.span, node: Node::new(value(item), item.span) });
    }
    node.value = Value::Map(map);
    Ok(())
}

/// A list of names stands for a mapping of them to nothing.
pub(super) fn names(node: &mut Node) -> Converted {
    list_as_map(node, |_| Value::Null)
}

pub(super) fn depends_on(node: &mut Node) -> Converted {
    list_as_map(node, started)?;
    for (_, dependency) in node.entries_mut() {
        if dependency.get("required").is_none() {
            dependency.set("required", Value::Bool(true));
        }
    }
    Ok(())
}

pub(super) fn device(node: &mut Node) -> Converted {
    let Some(text) = node.as_str() else {
        return match node.as_map().is_some() && node.get("target").is_none() {
            true => Err((node.span, "the key `target` is missing".into())),
            false => Ok(()),
        };
    };
    let mut parts = text.split(':');
    let source = parts.next().unwrap_or_default();
    let target = parts.next().filter(|t| !t.is_empty()).unwrap_or(source);
    let permissions = parts.next().unwrap_or("rwm");
    if parts.next().is_some() {
        return Err((
            node.span,
            format!("`{text}` is not a device; write it like /dev/a:/dev/b:rw"),
        ));
    }
    let parts = [("source", source), ("target", target), ("permissions", permissions)];
    *node = node.map(parts.map(|(key, part)| (key, Value::from(part))));
    Ok(())
}

/// Hosts and their addresses as a list of `host=address`, in order.
pub(super) fn hosts(node: &mut Node) -> Converted {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut add = |host: &str, addresses: &str| {
        let addresses =
            addresses.split(',').map(|a| a.trim_start_matches('[').trim_end_matches(']'));
        all.entry(host.to_owned()).or_default().extend(addresses.map(str::to_owned));
    };
    match &node.value {
        Value::Map(map) => {
            for (host, entry) in map {
                match (&entry.node.value, entry.node.as_str()) {
                    (_, Some(address)) => add(host, address),
                    (Value::List(items), _) if items.iter().all(|i| i.as_str().is_some()) => {
                        items.iter().filter_map(Node::as_str).for_each(|a| add(host, a));
                    }
                    _ => return wrong(&entry.node, "an address or a list of them"),
                }
            }
        }
        Value::List(items) => {
            for item in items {
                let parts =
                    item.as_str().and_then(|t| t.split_once('=').or_else(|| t.split_once(':')));
                let Some((host, address)) = parts else {
                    return wrong(item, "a host; write it like host=10.0.0.1");
                };
                add(host, address);
            }
        }
        _ => return wrong(node, "a mapping or a list of hosts"),
    }
    let lines = all.iter().flat_map(|(host, list)| list.iter().map(move |a| format!("{host}={a}")));
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    node.value = Value::List(lines.into_iter().map(|line| node.text(line)).collect());
    Ok(())
}

pub(super) fn gpus(node: &mut Node) -> Converted {
    if node.as_str() == Some("all") {
        node.value = Value::List(vec![node.map([("count", Value::Int(-1))])]);
    }
    for item in node.items_mut() {
        count_all(item);
    }
    Ok(())
}

/// A request for devices that names neither a number nor devices is for all.
pub(crate) fn count_all(request: &mut Node) {
    if request.get("count").is_none() && request.get("device_ids").is_none() {
        request.set("count", Value::Int(-1));
    }
}

pub(super) fn device_count(node: &mut Node) -> Converted {
    match node.as_str() {
        Some("all") => node.value = Value::Int(-1),
        Some(text) if text.parse::<i64>().is_err() => {
            return Err((node.span, format!("`{text}` is not a number of devices or `all`")));
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn ports(node: &mut Node) -> Converted {
    let Value::List(items) = &node.value else { return Ok(()) };
    let mut ports = Vec::new();
    for item in items {
        if ports.len() > usize::from(u16::MAX) {
            let what = format!("the ports come to more than {}", u16::MAX);
            return Err((item.span, what));
        }
        if item.as_map().is_some() {
            let mut port = item.clone();
            for (key, value) in [("mode", "ingress"), ("protocol", "tcp")] {
                if port.get(key).is_none() {
                    port.set(key, Value::from(value));
                }
            }
            ports.push(port);
            continue;
        }
        let spec = item.scalar_text().filter(|_| item.as_bool().is_none());
        let Some(spec) = spec else { return wrong(item, "a port") };
        for port in parse_port(&spec).map_err(|e| (item.span, e.to_string()))? {
            if port.target == 0 {
                return Err((item.span, "a container's port is not 0".into()));
            }
            let mut long = item.map([
                ("mode", Value::from("ingress")),
                ("target", Value::Int(port.target.into())),
                ("protocol", Value::from(port.protocol)),
            ]);
            if let Some(published) = port.published {
                long.set("published", Value::String(published));
            }
            if let Some(host_ip) = port.host_ip {
                long.set("host_ip", Value::String(host_ip));
            }
            ports.push(long);
        }
    }
    node.value = Value::List(ports);
    Ok(())
}

pub(super) fn pull_policy(node: &mut Node) -> Converted {
    const WORDS: [&str; 8] =
        ["always", "never", "build", "if_not_present", "missing", "refresh", "daily", "weekly"];
    let every = |text: &str| {
        let Some(rest) = text.strip_prefix("every_") else { return false };
        !rest.is_empty()
            && rest.starts_with(|c: char| c.is_ascii_digit())
            && rest.ends_with(|c| "wdhms".contains(c))
            && rest.chars().all(|c| c.is_ascii_digit() || "wdhms".contains(c))
    };
    match node.as_str() {
        Some(text) if WORDS.contains(&text) || every(text) => Ok(()),
        _ => wrong(node, &format!("one of {}, or like every_2d", WORDS.join(", "))),
    }
}

/// One number is both limits; otherwise both have to be there.
pub(super) fn ulimit(node: &mut Node) -> Converted {
    let number = |node: &Node| node.as_int().or_else(|| node.as_str()?.parse().ok());
    match number(node) {
        Some(0) => {
            *node = node.map([("soft", Value::Int(0)), ("hard", Value::Int(0))]);
            return Ok(());
        }
        Some(both) => {
            node.value = Value::Int(both);
            return Ok(());
        }
        None => {}
    }
    let limits = (node.get("soft").and_then(number), node.get("hard").and_then(number));
    let extra =
        node.entries().any(|(key, _)| !["soft", "hard"].contains(&key) && !key.starts_with("x-"));
    match limits {
        (Some(soft), Some(hard)) if !extra => {
            node.set("soft", Value::Int(soft));
            node.set("hard", Value::Int(hard));
            Ok(())
        }
        _ => wrong(node, "a limit; write a whole number, or `soft` and `hard`"),
    }
}

/// The limits of a build, of which none is a text.
pub(super) fn build_ulimit(node: &mut Node) -> Converted {
    match node.as_str() {
        Some(_) => wrong(node, "a limit; write a whole number, or `soft` and `hard`"),
        None => ulimit(node),
    }
}

pub(crate) fn volume(node: &mut Node) -> Converted {
    let Some(spec) = node.as_str() else { return Ok(()) };
    let short = parse_volume(spec).map_err(|e| (node.span, e.to_string()))?;
    let (mut bind, mut volume) = (node.map([]), node.map([]));
    for (key, value) in [("propagation", short.propagation), ("selinux", short.selinux)] {
        if let Some(value) = value {
            bind.set(key, Value::String(value));
        }
    }
    if short.nocopy {
        volume.set("nocopy", Value::Bool(true));
    }
    let kind = match short.kind {
        VolumeKind::Bind => "bind",
        VolumeKind::Volume => "volume",
    };
    // Only the short form of a path makes that where it is missing.
    if kind == "volume" && bind.entries().next().is_some() {
        bind.set("create_host_path", Value::Bool(false));
    }
    let target = if short.target.is_empty() { short.target } else { clean(&short.target) };
    let mut long = node.map([("type", Value::from(kind)), ("target", Value::String(target))]);
    if let Some(source) = short.source {
        long.set("source", Value::String(source));
    }
    if short.read_only {
        long.set("read_only", Value::Bool(true));
    }
    if spec.len() > 2 {
        for (key, options) in [("bind", bind), ("volume", volume)] {
            if key == kind || options.entries().next().is_some() {
                long.set(key, options.value);
            }
        }
    }
    *node = long;
    Ok(())
}

pub(super) fn health_test(node: &mut Node) -> Converted {
    if let Some(line) = node.as_str() {
        node.value = Value::List(vec![node.text("CMD-SHELL"), node.text(line)]);
    }
    Ok(())
}

/// Keys for the build: `default`, or `name: path`.
pub(super) fn ssh(node: &mut Node) -> Converted {
    let line = |name: &str, path: &str| {
        if path.is_empty() { name.to_owned() } else { format!("{name}: {path}") }
    };
    let mut keys = Vec::new();
    match &node.value {
        Value::Map(map) => {
            for (name, entry) in map {
                let path = entry.node.scalar_text();
                if path.is_none() && !entry.node.is_null() {
                    return wrong(&entry.node, "the path of a key");
                }
                keys.push(entry.node.text(line(name, &path.unwrap_or_default())));
            }
        }
        Value::List(items) => {
            for item in items {
                let Some(text) = item.as_str() else { return wrong(item, "a key's name") };
                // `name: path` is how these are written out.
                match text.split_once('=').or_else(|| text.split_once(": ")) {
                    Some((name, path)) => keys.push(item.text(line(name, path))),
                    None if text == "default" => keys.push(item.clone()),
                    None => {
                        let what = format!("`{text}` is not `default` or like name=path");
                        return Err((item.span, what));
                    }
                }
            }
        }
        _ => return wrong(node, "a mapping or a list of keys"),
    }
    node.value = Value::List(keys);
    Ok(())
}

/// Contexts as `name=where`.
pub(super) fn contexts(node: &mut Node) -> Converted {
    let text = |node: &&Node| node.as_str().is_none();
    if let Some(other) = node.entries().map(|(_, node)| node).find(text) {
        return wrong(other, "a context");
    }
    let pair = |item: &&Node| !item.as_str().is_some_and(|text| text.contains('='));
    match node.items().iter().find(pair) {
        Some(item) => wrong(item, "a context; write it like name=../folder"),
        None => Ok(()),
    }
}

fn fill<const N: usize>(node: &mut Node, zeros: [(&str, Value); N]) -> Converted {
    for (key, zero) in zeros {
        if node.get(key).is_none() {
            node.set(key, zero);
        }
    }
    Ok(())
}

/// The keys that are written out though they are zero.
pub(super) fn rate(node: &mut Node) -> Converted {
    fill(node, [("path", Value::from("")), ("rate", Value::Int(0))])
}

/// The same.
pub(super) fn weight(node: &mut Node) -> Converted {
    fill(node, [("path", Value::from("")), ("weight", Value::Int(0))])
}

/// The same.
pub(super) fn discrete(node: &mut Node) -> Converted {
    fill(node, [("kind", Value::from("")), ("value", Value::Int(0))])
}

/// A container's name has two characters that names may have, somewhere.
pub(super) fn container_name(node: &mut Node) -> Converted {
    let first = |c: char| c.is_ascii_alphanumeric();
    let rest = |c: char| first(c) || "_.-".contains(c);
    match node.as_str() {
        Some(name) if !name.chars().zip(name.chars().skip(1)).any(|(a, b)| first(a) && rest(b)) => {
            wrong(node, "the name of a container")
        }
        _ => Ok(()),
    }
}
