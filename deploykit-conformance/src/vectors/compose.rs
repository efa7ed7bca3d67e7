//! Cases of Compose files, recorded from `compose-go`.

use std::collections::BTreeMap;

use deploykit_compose::{
    Node, VolumeKind, dotenv, from_yaml, interpolate, merge, parse_port, parse_volume,
};
use serde_json::{Value, json};

use super::{Check, Kind};

/// Variables in texts. Two tests of the reference replace its substitution by one of their own.
pub(super) const INTERPOLATION: Kind = Kind {
    name: "compose-interpolation",
    path: "compose-interpolation.jsonl",
    check: Check::Line(interpolation),
    left_out: &[
        "template.TestSubstituteWithCustomFunc",
        "template.TestSubstituteWithReplacementFunc",
    ],
};

/// Files of variables.
pub(super) const DOTENV: Kind = Kind {
    name: "compose-dotenv",
    path: "compose-dotenv.jsonl",
    check: Check::Line(variables),
    left_out: &[],
};

/// The short form of ports.
pub(super) const PORT_SHORT: Kind = Kind {
    name: "compose-port-short",
    path: "compose-port-short.jsonl",
    check: Check::Line(port),
    left_out: &[],
};

/// The short form of mounts.
pub(super) const VOLUME_SHORT: Kind = Kind {
    name: "compose-volume-short",
    path: "compose-volume-short.jsonl",
    check: Check::Line(volume),
    left_out: &[],
};

/// One file laid over another.
pub(super) const MERGE: Kind = Kind {
    name: "compose-merge",
    path: "compose-merge.jsonl",
    check: Check::Line(merged),
    left_out: &[],
};

/// Compares what came with what was recorded; of an error only that it is one.
pub(super) fn compare<E: std::fmt::Display>(
    case: &Value,
    expected: &str,
    came: Result<Value, E>,
) -> Result<(), String> {
    let rejected = case.get("error").is_some_and(|error| !error.is_null());
    match came {
        Err(_) if rejected => Ok(()),
        Err(error) => Err(format!("is right, but was rejected: {error}")),
        Ok(came) if rejected => Err(format!("is wrong, but was accepted as {came}")),
        Ok(came) if came == case[expected] => Ok(()),
        Ok(came) => Err(format!("expected {}, came {came}", case[expected])),
    }
}

fn text<'a>(case: &'a Value, field: &str) -> &'a str {
    case.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn lookup(case: &Value, name: &str) -> Option<String> {
    case["lookups"].get(name).and_then(Value::as_str).map(str::to_owned)
}

fn interpolation(case: &Value) -> Result<(), String> {
    let came = interpolate(text(case, "template"), &|name| lookup(case, name));
    compare(case, "result", came.map(Value::String))
}

fn variables(case: &Value) -> Result<(), String> {
    let mut all: BTreeMap<String, String> =
        serde_json::from_value(case["pre"].clone()).map_err(|e| e.to_string())?;
    let came = dotenv(text(case, "input"), &mut all, &|name| lookup(case, name));
    compare(case, "result", came.map(|()| json!(all)))
}

fn port(case: &Value) -> Result<(), String> {
    let came = parse_port(text(case, "spec")).map(|ports| {
        let ports = ports.iter().map(|port| {
            let mut object = json!({"mode": "ingress", "protocol": port.protocol});
            if port.target != 0 {
                object["target"] = json!(port.target);
            }
            if let Some(published) = &port.published {
                object["published"] = json!(published);
            }
            if let Some(host_ip) = &port.host_ip {
                object["host_ip"] = json!(host_ip);
            }
            object
        });
        Value::Array(ports.collect())
    });
    compare(case, "result", came)
}

fn volume(case: &Value) -> Result<(), String> {
    let came = parse_volume(text(case, "spec")).map(|volume| {
        let kind = match volume.kind {
            VolumeKind::Bind => "bind",
            VolumeKind::Volume => "volume",
        };
        let (mut bind, mut options) = (json!({}), json!({}));
        for (key, value) in [("propagation", &volume.propagation), ("selinux", &volume.selinux)] {
            if let Some(value) = value {
                bind[key] = json!(value);
            }
        }
        if kind == "volume" && bind != json!({}) {
            bind["create_host_path"] = json!(false);
        }
        if volume.nocopy {
            options["nocopy"] = json!(true);
        }
        let mut object = json!({"type": kind, "target": volume.target});
        // The reference leaves the options out where the target is one or two characters alone.
        if volume.source.is_some() || volume.target.len() > 2 {
            for (key, value) in [("bind", bind), ("volume", options)] {
                if key == kind || value != json!({}) {
                    object[key] = value;
                }
            }
        }
        if let Some(source) = &volume.source {
            object["source"] = json!(source);
        }
        if volume.read_only {
            object["read_only"] = json!(true);
        }
        object
    });
    compare(case, "result", came)
}

fn merged(case: &Value) -> Result<(), String> {
    let read = |field: &str| from_yaml(text(case, field)).map_err(|e| e.to_string());
    let came = merge(read("base")?, read("override")?).map_err(|problems| problems[0].what.clone());
    let rejected = !case["error"].is_null();
    match came {
        Err(_) if rejected => Ok(()),
        Ok(node) if !rejected && same(&node, &read("merged")?) => Ok(()),
        other => Err(format!("expected {}, came {other:?}", text(case, "merged"))),
    }
}

/// Whether two trees are the same; the order of a mapping does not count.
pub(super) fn same(a: &Node, b: &Node) -> bool {
    a == b
}
