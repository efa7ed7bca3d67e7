//! Keys that the model has nothing for.

use std::collections::BTreeSet;

use crate::app::BINARY;
use crate::diagnostic::Diagnostic;
use crate::schema::{Becomes, Object, PROJECT, Shape, object_of};
use crate::yaml::{Node, Value};

/// Adds every key that is refused, or allowed only by a name that is not among `allowed`.
pub(super) fn check(root: &Node, allowed: &BTreeSet<String>, problems: &mut Vec<Diagnostic>) {
    object(root, &PROJECT, "", "", allowed, problems);
}

fn object(
    node: &Node,
    keys: &Object,
    path: &str,
    pattern: &str,
    allowed: &BTreeSet<String>,
    problems: &mut Vec<Diagnostic>,
) {
    let within = |base: &str, key: &str| {
        if base.is_empty() { key.to_owned() } else { format!("{base}.{key}") }
    };
    for (name, entry) in node.as_map().into_iter().flatten() {
        let Some(key) = keys.keys.iter().find(|key| key.name == name) else { continue };
        let (path, pattern) = (within(path, name), within(pattern, name));
        let built = name == "build" && node.str(BINARY).is_some_and(|file| !file.is_empty());
        if built || implied(name, &entry.node) {
            continue;
        }
        match key.becomes {
            Becomes::Refused(why) => {
                let what = format!("`{name}` is not supported: {why}");
                problems.push(Diagnostic::new(entry.key, path, what));
            }
            Becomes::Allowed(_) if allowed.contains(&pattern) => {}
            Becomes::Allowed(why) => {
                let what = format!("`{name}` would be left out: {why}");
                let fix = format!("allow `{pattern}` to leave it out");
                problems.push(Diagnostic::new(entry.key, path, what).fix(fix));
            }
            Becomes::Inner | Becomes::Loaded | Becomes::Model(_) => {
                descend(&entry.node, &key.shape, &path, &pattern, allowed, problems);
            }
        }
    }
}

fn descend(
    node: &Node,
    shape: &Shape,
    path: &str,
    pattern: &str,
    allowed: &BTreeSet<String>,
    problems: &mut Vec<Diagnostic>,
) {
    let Some((keys, suffix)) = object_of(shape) else { return };
    let pattern = format!("{pattern}{suffix}");
    match (suffix, &node.value) {
        ("", _) => object(node, keys, path, &pattern, allowed, problems),
        (_, Value::List(items)) => {
            for (index, item) in items.iter().enumerate() {
                object(item, keys, &format!("{path}[{index}]"), &pattern, allowed, problems);
            }
        }
        _ => {
            for (name, item) in node.entries() {
                object(item, keys, &format!("{path}.{name}"), &pattern, allowed, problems);
            }
        }
    }
}

/// Whether a value is what loading fills in where a file says nothing, or what is done anyway.
fn implied(name: &str, node: &Node) -> bool {
    match name {
        "required" => node.as_bool() == Some(true),
        "mode" => node.as_str() == Some("ingress"),
        "create_host_path" => node.as_bool() == Some(false),
        _ => false,
    }
}
