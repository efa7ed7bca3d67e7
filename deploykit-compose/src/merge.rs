//! One file laid over another.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/13-merge.md)

use std::collections::HashSet;

use crate::diagnostic::Diagnostic;
use crate::yaml::{Entry, Mapping, Mark, Node, Value};

/// How the values of one path are merged, where not by their kind.
enum Rule {
    /// The later one stands alone.
    Replace,
    /// Both become lists, a mapping one of `key=value`.
    Sequence,
    /// The same, without what is in both.
    Hosts,
    /// Both become mappings; a list is one of names with nothing.
    Names,
    /// The same; a name alone means that it has started.
    Dependencies,
    /// Both become mappings; a text is the context.
    Build,
    /// Merged only where both are for the same driver.
    Logging,
    /// Entries are matched by their subnet.
    Subnets,
}

const RULES: &[(&[&str], Rule)] = &[
    (&["networks", "*", "ipam", "config"], Rule::Subnets),
    (&["networks", "*", "labels"], Rule::Sequence),
    (&["volumes", "*", "labels"], Rule::Sequence),
    (&["services", "*", "annotations"], Rule::Sequence),
    (&["services", "*", "build"], Rule::Build),
    (&["services", "*", "build", "additional_contexts"], Rule::Sequence),
    (&["services", "*", "build", "args"], Rule::Sequence),
    (&["services", "*", "build", "extra_hosts"], Rule::Hosts),
    (&["services", "*", "build", "labels"], Rule::Sequence),
    (&["services", "*", "command"], Rule::Replace),
    (&["services", "*", "depends_on"], Rule::Dependencies),
    (&["services", "*", "deploy", "labels"], Rule::Sequence),
    (&["services", "*", "dns"], Rule::Sequence),
    (&["services", "*", "dns_opt"], Rule::Sequence),
    (&["services", "*", "dns_search"], Rule::Sequence),
    (&["services", "*", "entrypoint"], Rule::Replace),
    (&["services", "*", "env_file"], Rule::Sequence),
    (&["services", "*", "environment"], Rule::Sequence),
    (&["services", "*", "extra_hosts"], Rule::Hosts),
    (&["services", "*", "healthcheck", "test"], Rule::Replace),
    (&["services", "*", "label_file"], Rule::Sequence),
    (&["services", "*", "labels"], Rule::Sequence),
    (&["services", "*", "logging"], Rule::Logging),
    (&["services", "*", "models"], Rule::Names),
    (&["services", "*", "networks"], Rule::Names),
    (&["services", "*", "sysctls"], Rule::Sequence),
    (&["services", "*", "tmpfs"], Rule::Sequence),
    (&["services", "*", "ulimits", "*"], Rule::Replace),
];

/// Lays `over` over `base`.
///
/// # Errors
/// What cannot be laid over what, by path: a text over a mapping.
pub fn merge(base: Node, over: Node) -> Result<Node, Vec<Diagnostic>> {
    merge_at(base, over, &mut Vec::new())
}

/// Lays a service over the one that it extends.
pub(crate) fn merge_service(base: Node, over: Node) -> Result<Node, Vec<Diagnostic>> {
    merge_at(base, over, &mut vec!["services".into(), "*".into()])
}

/// Removes what `!reset` takes away, and every other mark.
pub(crate) fn clear_marks(node: &mut Node) {
    node.mark = Mark::None;
    match &mut node.value {
        Value::Map(map) => {
            map.retain(|_, entry| entry.node.mark != Mark::Reset);
            map.values_mut().for_each(|entry| clear_marks(&mut entry.node));
        }
        Value::List(items) => {
            items.retain(|item| item.mark != Mark::Reset);
            items.iter_mut().for_each(clear_marks);
        }
        _ => {}
    }
}

fn merge_at(base: Node, over: Node, path: &mut Vec<String>) -> Result<Node, Vec<Diagnostic>> {
    let matches = |pattern: &[&str]| {
        pattern.len() == path.len() && pattern.iter().zip(&*path).all(|(p, s)| *p == "*" || p == s)
    };
    let rule = RULES.iter().find(|(pattern, _)| matches(pattern)).map(|(_, rule)| rule);
    let span = over.span;
    match rule {
        Some(Rule::Replace) => Ok(over),
        Some(Rule::Sequence) => {
            let (base, over) = without_reset(base, over);
            let mut items = sequence(base);
            items.extend(sequence(over));
            Ok(Node::new(Value::List(items), span))
        }
        Some(Rule::Hosts) => {
            let mut items = sequence(base);
            // `host:address` is `host=address`.
            let line = |item: &Node| Some(item.as_str()?.replacen([':', '='], "=", 1));
            let there: HashSet<Option<String>> = items.iter().map(line).collect();
            let new = |item: &Node| !there.contains(&line(item));
            items.extend(sequence(over).into_iter().filter(new));
            Ok(Node::new(Value::List(items), span))
        }
        Some(Rule::Names) => {
            merge_maps(names(base, |_| Value::Null), names(over, |_| Value::Null), path)
        }
        Some(Rule::Dependencies) => merge_maps(names(base, started), names(over, started), path),
        Some(Rule::Build) => merge_maps(build(base), build(over), path),
        Some(Rule::Logging) => {
            let drivers = (base.get("driver"), over.get("driver"));
            match drivers {
                _ if over.is_null() => Ok(base),
                (Some(a), Some(b)) if a != b => Ok(over),
                _ => by_kind(base, over, path),
            }
        }
        Some(Rule::Subnets) => Ok(subnets(base, over)),
        None => by_kind(base, over, path),
    }
}

fn by_kind(base: Node, over: Node, path: &mut Vec<String>) -> Result<Node, Vec<Diagnostic>> {
    match (&base.value, &over.value) {
        (Value::Map(_) | Value::List(_), Value::Null) => Ok(base),
        (Value::Map(_), Value::Map(_)) => merge_maps(base, over, path),
        (Value::List(_), Value::List(_)) => {
            let mut items = items(base);
            let span = over.span;
            items.extend(self::items(over));
            Ok(Node::new(Value::List(items), span))
        }
        (Value::Map(_) | Value::List(_), _) => {
            let what = format!("{} cannot be laid over {}", over.kind(), base.kind());
            Err(vec![Diagnostic::new(over.span, path.join("."), what).also(base.span)])
        }
        _ => Ok(over),
    }
}

fn merge_maps(mut base: Node, over: Node, path: &mut Vec<String>) -> Result<Node, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let Value::Map(over_map) = over.value else { return Ok(base) };
    let Some(map) = base.as_map_mut() else {
        return Ok(Node::new(Value::Map(over_map), over.span));
    };
    for (key, mut entry) in over_map {
        match (entry.node.mark, map.get_mut(&key)) {
            (Mark::Reset, _) => {
                map.shift_remove(&key);
            }
            (Mark::None, Some(there)) => {
                path.push(key);
                match merge_at(std::mem::take(&mut there.node), entry.node, path) {
                    Ok(merged) => *there = Entry { key: entry.key, node: merged },
                    Err(more) => problems.extend(more),
                }
                path.pop();
            }
            _ => {
                entry.node.mark = Mark::None;
                map.insert(key, entry);
            }
        }
    }
    if problems.is_empty() { Ok(base) } else { Err(problems) }
}

fn items(node: Node) -> Vec<Node> {
    if let Value::List(items) = node.value { items } else { Vec::new() }
}

/// Takes what `over` resets out of both.
fn without_reset(mut base: Node, mut over: Node) -> (Node, Node) {
    if let Some(map) = over.as_map_mut() {
        map.retain(|key, entry| {
            let keep = entry.node.mark != Mark::Reset;
            match &mut base.value {
                Value::Map(there) if !keep => {
                    there.shift_remove(key);
                }
                Value::List(items) if !keep => {
                    let named =
                        |item: &Node| item.as_str()?.split('=').next().map(|name| name == key);
                    items.retain(|item| named(item) != Some(true));
                }
                _ => {}
            }
            keep
        });
    }
    (base, over)
}

/// A mapping as a list of `key=value` in the order of its texts; a scalar as a list of itself.
fn sequence(node: Node) -> Vec<Node> {
    let Value::Map(map) = &node.value else {
        return match node.value {
            Value::List(items) => items,
            Value::Null => Vec::new(),
            _ => vec![node],
        };
    };
    let mut list: Vec<Node> = Vec::with_capacity(map.len());
    for (key, entry) in map {
        match &entry.node.value {
            Value::Null => list.push(entry.node.text(key.clone())),
            Value::List(values) => {
                let texts = values.iter().filter_map(Node::scalar_text);
                list.extend(texts.map(|text| entry.node.text(format!("{key}={text}"))));
            }
            _ => {
                let text = entry.node.scalar_text().unwrap_or_default();
                list.push(entry.node.text(format!("{key}={text}")));
            }
        }
    }
    list.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    list
}

fn names(node: Node, value: fn(&Node) -> Value) -> Node {
    let Value::List(items) = &node.value else { return node };
    let mut map = Mapping::new();
    for item in items {
        let Some(name) = item.as_str() else { return node };
        map.insert(name.into(), Entry { key: item.span, node: Node::new(value(item), item.span) });
    }
    Node::new(Value::Map(map), node.span)
}

/// What a dependency is that is given by its name alone.
pub(crate) fn started(node: &Node) -> Value {
    let condition = Value::from("service_started");
    node.map([("condition", condition), ("required", Value::Bool(true))]).value
}

fn build(node: Node) -> Node {
    match &node.value {
        Value::String(context) => node.map([("context", Value::from(context.clone()))]),
        _ => node,
    }
}

fn subnets(base: Node, over: Node) -> Node {
    let span = over.span;
    let mut merged = items(base);
    for later in items(over) {
        let same = |item: &&mut Node| item.get("subnet") == later.get("subnet");
        match merged.iter_mut().find(same) {
            Some(item) => {
                let earlier = std::mem::take(item);
                *item = merge_maps(earlier, later, &mut Vec::new()).unwrap_or_default();
            }
            None => merged.push(later),
        }
    }
    Node::new(Value::List(merged), span)
}
