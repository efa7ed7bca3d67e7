//! From trees to text.

use std::fmt::Write;

use super::{Node, Value, format_float};

/// Writes a tree as YAML that reads as the same tree.
pub fn to_yaml(node: &Node) -> String {
    let mut out = String::new();
    match &node.value {
        Value::Map(map) if !map.is_empty() => block(&mut out, node, 0),
        Value::List(items) if !items.is_empty() => block(&mut out, node, 0),
        _ => {
            inline(&mut out, node, 0);
            out.push('\n');
        }
    }
    out
}

/// The same tree with every dollar sign twice, since one alone begins a variable.
pub(crate) fn without_variables(node: &Node) -> Node {
    let mut node = node.clone();
    double(&mut node);
    node
}

fn double(node: &mut Node) {
    match &mut node.value {
        Value::String(text) if text.contains('$') => *text = text.replace('$', "$$"),
        Value::List(items) => items.iter_mut().for_each(double),
        Value::Map(map) => map.values_mut().for_each(|entry| double(&mut entry.node)),
        _ => {}
    }
}

/// Writes a mapping or list that is not empty, each entry on its own line.
fn block(out: &mut String, node: &Node, indent: usize) {
    match &node.value {
        Value::Map(map) => {
            for (key, entry) in map {
                let _ = write!(out, "{:indent$}{}:", "", scalar(key));
                child(out, &entry.node, indent);
            }
        }
        Value::List(items) => {
            for item in items {
                let _ = write!(out, "{:indent$}-", "");
                let before = out.len();
                if matches!(&item.value, Value::Map(map) if !map.is_empty()) {
                    block(out, item, indent + 2);
                    // The first entry stands behind the dash.
                    out.replace_range(before..before + indent + 1, "");
                } else {
                    child(out, item, indent);
                }
            }
        }
        _ => {}
    }
}

fn child(out: &mut String, node: &Node, indent: usize) {
    match &node.value {
        Value::Map(map) if !map.is_empty() => {
            out.push('\n');
            block(out, node, indent + 2);
        }
        Value::List(items) if !items.is_empty() => {
            out.push('\n');
            block(out, node, indent + 2);
        }
        _ => {
            out.push(' ');
            inline(out, node, indent + 2);
            out.push('\n');
        }
    }
}

fn inline(out: &mut String, node: &Node, indent: usize) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) if number.is_nan() => out.push_str(".nan"),
        Value::Float(number) if number.is_infinite() => {
            out.push_str(if *number > 0.0 { ".inf" } else { "-.inf" });
        }
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 1e15 => {
            let _ = write!(out, "{number:.1}");
        }
        Value::Float(number) => out.push_str(&format_float(*number)),
        Value::String(text) if literal(text) => {
            out.push_str(if text.ends_with('\n') { "|" } else { "|-" });
            for line in text.lines() {
                out.push('\n');
                if !line.is_empty() {
                    let _ = write!(out, "{:indent$}{line}", "");
                }
            }
        }
        Value::String(text) => out.push_str(&scalar(text)),
        Value::List(_) => out.push_str("[]"),
        Value::Map(_) => out.push_str("{}"),
    }
}

/// Whether a text is readable as a literal block and survives it.
fn literal(text: &str) -> bool {
    let body = text.strip_suffix('\n').unwrap_or(text);
    body.contains('\n')
        && !body.starts_with([' ', '\n', '\t'])
        && !body.ends_with(['\n', ' ', '\t'])
        && !text.chars().any(|c| c != '\n' && (c.is_control() || c == '\u{feff}' || c == '\u{85}'))
        && !text.contains(['\u{2028}', '\u{2029}'])
}

/// A text on one line: plain where that is read back as the same text, else in double quotes.
fn scalar(text: &str) -> String {
    let first = |c: char| c.is_ascii_alphabetic() || "/_.".contains(c);
    let rest = |c: char| c.is_ascii_alphanumeric() || "/_.-+@ ,()".contains(c);
    let plain = text.starts_with(first)
        && text.chars().all(rest)
        && !text.ends_with(' ')
        && matches!(super::scalar::resolve(text), Value::String(_))
        && !["yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain { text.to_owned() } else { quoted(text) }
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}') => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::yaml::parse;

    #[test]
    fn what_is_written_reads_the_same() {
        let text = r##"
a: {b: [1, -2.5, 3.0, true, null, "", "yes", "0x1", "1.5", 'it''s', "a: b", "#c", "- d"]}
list: [[1, [2]], {x: {y: z}, w: []}, {}, []]
text: "line\n  two\n\nend\n"
odd: [" a\nb", "tab\tq\"\\", "\e[0m", "é ü", "trail ", "a\nb", "x\n\n"]
"key with: colon": 080
"##;
        let node = parse(text, 0).unwrap().0.remove(0);
        let written = to_yaml(&node);
        let again = parse(&written, 0).unwrap().0.remove(0);
        assert_eq!(again, node, "{written}");
    }
}
