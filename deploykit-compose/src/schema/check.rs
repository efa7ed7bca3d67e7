//! Compares a tree with its keys, and brings every value to its normal form.

use std::collections::HashSet;

use super::{Kind, Object, Shape};
use crate::diagnostic::Diagnostic;
use crate::short::{format_duration, parse_bytes, parse_duration, split_words};
use crate::yaml::{Entry, Mapping, Node, Value};

/// The most problems that are looked for.
pub(crate) const MOST_PROBLEMS: usize = 1000;
/// The most items that the short forms of a project may come to.
const MOST_MADE: usize = 70_000;

/// Compares trees with their keys.
#[derive(Default)]
pub(crate) struct Checker {
    /// What is wrong.
    pub(crate) problems: Vec<Diagnostic>,
    /// How many items the short forms have come to.
    made: usize,
}

impl Checker {
    fn push(&mut self, problem: Diagnostic) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(problem);
        }
    }

    fn report(&mut self, node: &Node, path: &str, wanted: &str) {
        let what = match node.scalar_text() {
            Some(text) if node.as_str().is_none() => {
                format!("{} ({text}) is not {wanted}", node.kind())
            }
            Some(text) => format!("`{text:.100}` is not {wanted}"),
            None => format!("{} is not {wanted}", node.kind()),
        };
        self.push(Diagnostic::new(node.span, path, what));
    }

    /// Checks `node` against `shape` and brings it to its normal form.
    pub(crate) fn check(&mut self, node: &mut Node, shape: &Shape, path: &str) {
        let before = self.problems.len();
        let scalar = node.scalar_text();
        match shape {
            Shape::Any => {}
            Shape::Text => match node.as_str() {
                Some(_) => {}
                None if scalar.is_some() => {
                    self.report(node, path, "a text");
                    if let Some(last) = self.problems.last_mut() {
                        last.fix = "put it in quotes".into();
                    }
                }
                None => self.report(node, path, "a text"),
            },
            Shape::Word(words) => {
                if !node.as_str().is_some_and(|text| words.contains(&text)) {
                    self.report(node, path, &format!("one of {}", words.join(", ")));
                }
            }
            Shape::Bool => match scalar.as_deref().and_then(yes_or_no) {
                Some(value) => node.value = Value::Bool(value),
                None => self.report(node, path, "yes or no; write true or false"),
            },
            Shape::Flag => {
                if node.as_bool().is_none() {
                    self.report(node, path, "true or false");
                }
            }
            Shape::Int(int) => match int.of(&node.value) {
                Some(number) => node.value = Value::Int(number),
                None if int.min > i64::MIN => {
                    let most = (int.max < i64::MAX).then(|| format!(" to {}", int.max));
                    let most = most.unwrap_or_default();
                    self.report(node, path, &format!("a whole number from {}{most}", int.min));
                }
                None => self.report(node, path, "a whole number"),
            },
            Shape::Number => {
                match (&node.value, scalar.and_then(|text| text.trim().parse::<f64>().ok())) {
                    (Value::Int(_) | Value::Float(_), _) => {}
                    (Value::String(_), Some(number)) => node.value = Value::Float(number),
                    _ => self.report(node, path, "a number"),
                }
            }
            Shape::Duration => match node.as_str().and_then(parse_duration) {
                Some(duration) => node.value = Value::String(format_duration(duration)),
                None => self.report(node, path, "a duration; write it like 500ms, 10s or 1m30s"),
            },
            Shape::Bytes | Shape::Size => {
                let whole = !matches!(node.value, Value::Float(_) | Value::Bool(_));
                let least = if matches!(shape, Shape::Size) { 0 } else { -1 };
                let amount = scalar.as_deref().filter(|_| whole).and_then(parse_bytes);
                match amount.filter(|amount| *amount >= least) {
                    Some(amount) => node.value = Value::String(amount.to_string()),
                    None => self.report(node, path, "an amount of bytes; write it like 64m or 1gb"),
                }
            }
            Shape::Scalar(also) => match (&node.value, scalar) {
                (Value::Bool(_), _) if !also.contains(&Kind::Bool) => {
                    self.report(node, path, "a text")
                }
                (Value::Int(_), _) if !also.contains(&Kind::Int) => {
                    self.report(node, path, "a text")
                }
                (Value::Float(_), _) if !also.contains(&Kind::Float) => {
                    self.report(node, path, "a text")
                }
                (Value::Null, _) if also.contains(&Kind::Null) => node.value = Value::from(""),
                (_, Some(text)) => node.value = Value::String(text),
                _ => self.report(node, path, "a text"),
            },
            Shape::Mode => {
                let mode = match &node.value {
                    Value::Int(mode) => u32::try_from(*mode).ok(),
                    Value::String(text) => u32::from_str_radix(text, 8).ok(),
                    _ => None,
                };
                match mode {
                    Some(mode) => node.value = Value::String(format!("0{mode:o}")),
                    None => {
                        self.report(node, path, "the permissions of a file; write them like 0440")
                    }
                }
            }
            Shape::List(inner) => match &mut node.value {
                Value::List(items) => {
                    for (index, item) in items.iter_mut().enumerate() {
                        self.check(item, inner, &format!("{path}[{index}]"));
                    }
                }
                _ => self.report(node, path, "a list"),
            },
            Shape::Map(inner) | Shape::Named(inner) => match &mut node.value {
                Value::Map(map) => {
                    for (name, entry) in map.iter_mut() {
                        let path = format!("{path}.{name}");
                        if matches!(shape, Shape::Named(_)) && !is_name(name) {
                            let what = format!("`{name}` is not a name");
                            let fix = "use letters, digits, `.`, `_` and `-`";
                            self.push(Diagnostic::new(entry.key, path.clone(), what).fix(fix));
                        }
                        self.check(&mut entry.node, inner, &path);
                    }
                }
                _ => self.report(node, path, "a mapping"),
            },
            Shape::Once(inner) => {
                let mut seen = HashSet::new();
                for item in node.items() {
                    if !seen.insert(item.scalar_text()) && item.scalar_text().is_some() {
                        self.push(Diagnostic::new(item.span, path, "this is in the list already"));
                    }
                }
                self.check(node, inner, path);
            }
            Shape::Texts => {
                if node.as_str().is_some() {
                    node.value = Value::List(vec![node.clone()]);
                }
                self.check(node, &Shape::List(&Shape::Text), path);
            }
            Shape::Variables | Shape::Labels => {
                if let Some(wrong) = variables(node, matches!(shape, Shape::Labels)) {
                    self.report(&wrong, path, "a text, a number, or yes or no");
                }
            }
            Shape::Command => match &node.value {
                Value::Null => {}
                Value::String(line) => match split_words(line) {
                    Ok(words) => {
                        let words = words.into_iter().map(|word| node.text(word)).collect();
                        node.value = Value::List(words);
                    }
                    Err(why) => {
                        let what = format!("this is not a command line: {why}");
                        self.push(Diagnostic::new(node.span, path, what));
                    }
                },
                _ => self.check(node, &Shape::List(&Shape::Text), path),
            },
            Shape::Optional(inner) => {
                if !node.is_null() {
                    self.check(node, inner, path);
                }
            }
            Shape::Object(object) => self.keys(node, object, path),
            Shape::Short(long, inner) => {
                if self.made > MOST_MADE {
                    return;
                }
                let listed = matches!(node.value, Value::List(_));
                match long(node) {
                    Ok(()) => {}
                    Err((span, what)) => self.push(Diagnostic::new(span, path, what)),
                }
                self.made += node.items().len();
                if self.made > MOST_MADE {
                    let what = format!("the project comes to more than {MOST_MADE} items here");
                    self.push(Diagnostic::new(node.span, path, what));
                    return;
                }
                if self.problems.len() == before {
                    // Names in a list need not be names that a mapping could have.
                    let map = match inner {
                        Shape::Named(item) if listed => &Shape::Map(item),
                        _ => *inner,
                    };
                    self.check(node, map, path);
                }
            }
        }
    }

    fn keys(&mut self, node: &mut Node, object: &Object, path: &str) {
        let Value::Map(map) = &mut node.value else {
            let what = format!("{} is not a mapping", node.kind());
            self.push(Diagnostic::new(node.span, path, what));
            return;
        };
        for required in object.required {
            if !map.contains_key(*required) {
                let what = format!("the key `{required}` is missing");
                self.push(Diagnostic::new(node.span, path, what));
            }
        }
        for (name, entry) in map.iter_mut() {
            if (object.extensible && name.starts_with("x-")) || self.problems.len() >= MOST_PROBLEMS
            {
                continue;
            }
            let child = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let Some(key) = object.keys.iter().find(|key| key.name == name) else {
                let what = format!("`{name}` is not a key here");
                let near = nearest(name, object.keys.iter().map(|key| key.name));
                let fix = near.map(|near| format!("do you mean `{near}`?")).unwrap_or_default();
                self.push(Diagnostic::new(entry.key, path, what).fix(fix));
                continue;
            };
            self.check(&mut entry.node, &key.shape, &child);
        }
    }
}

/// The known name that is nearest to a misspelt one.
pub(crate) fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    if name.len() > 64 {
        return None;
    }
    let scored = known.map(|k| (strsim::normalized_damerau_levenshtein(name, k), k));
    scored.filter(|(score, _)| *score >= 0.6).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn yes_or_no(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "y" | "yes" | "on" => Some(true),
        "false" | "n" | "no" | "off" => Some(false),
        _ => None,
    }
}

/// Makes a mapping of texts; gives the value that cannot be one.
fn variables(node: &mut Node, empty: bool) -> Option<Node> {
    let mut map = Mapping::new();
    let absent = if empty { Value::from("") } else { Value::Null };
    match &node.value {
        Value::Map(entries) => {
            for (name, entry) in entries {
                let value = match entry.node.scalar_text() {
                    Some(text) => Value::String(text),
                    None if entry.node.is_null() => absent.clone(),
                    None => return Some(entry.node.clone()),
                };
                let node = Node::new(value, entry.node.span);
                map.insert(name.clone(), Entry { key: entry.key, node });
            }
        }
        Value::List(items) => {
            for item in items {
                let Some(text) = item.as_str() else { return Some(item.clone()) };
                let (name, value) = match text.split_once('=') {
                    Some((name, value)) => (name, Value::from(value)),
                    None => (text, absent.clone()),
                };
                if !empty && name.ends_with(char::is_whitespace) {
                    return Some(item.clone());
                }
                let node = Node::new(value, item.span);
                map.insert(name.to_owned(), Entry { key: item.span, node });
            }
        }
        _ => return Some(node.clone()),
    }
    node.value = Value::Map(map);
    None
}
