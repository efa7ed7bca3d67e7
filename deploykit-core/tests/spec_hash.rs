//! What makes two instances differ, and that its hash never changes: each file in
//! `golden/spec_hash` holds a template and the hash that it had when it was written.
//!
//! `UPDATE_GOLDEN=1` writes files that are not there yet. One that is there is never rewritten: a
//! hash that changes rolls every service of every user.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use deploykit_core::model::*;
use deploykit_core::{ResolvedApp, SpecHash, Template};
use serde_json::{Value, json};

fn minimal() -> Template {
    serde_json::from_value(json!({
        "image": {"source": "/bin/web", "digest": "sha256:00"},
        "stop_grace": {"secs": 10, "nanos": 0},
    }))
    .unwrap()
}

fn web() -> Template {
    let app = App::from_yaml(
        "
name: blog
secrets: {key: {}}
services:
  web:
    image: {binary: /bin/web}
    ports: [{port: 8080, protocol: http, publish: public}]
    probes: {readiness: {check: {http: {path: /healthz}}}}
    mounts: [{secret: {name: key}}]
    connects_to: [users]
  users: {image: {binary: /bin/users}, ports: [{port: 80}]}
",
    );
    resolved(app.unwrap()).template(&"web".parse().unwrap()).unwrap()
}

/// A literal: a new field does not compile until it is here.
fn everything() -> Template {
    let probe = |check: Value| -> Probe {
        serde_json::from_value(json!({
            "check": check, "interval": "2s", "timeout": "3s", "initial_delay": "4s",
            "failure_threshold": 5, "success_threshold": 6,
        }))
        .unwrap()
    };
    let from = |value: Value| -> Vec<Mount> { serde_json::from_value(value).unwrap() };
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    Template {
        image: ResolvedImage { source: "registry/web:1".into(), digest: "sha256:ff".into() },
        command: texts(&["/bin/sh", "-c"]),
        args: texts(&["echo \"$HOST\"", "ü\n"]),
        env: BTreeMap::from([("B".into(), "2".into()), ("A".into(), "1".into())]),
        workdir: Some("/srv".into()),
        user: Some("web".into()),
        resources: Resources {
            cpu_limit: Cpu::millis(1500),
            memory_limit: Bytes::new(1 << 30),
            cpu_request: Cpu::millis(500),
            memory_request: Bytes::new(1_000_000),
        },
        ports: serde_json::from_value(json!([
            {"port": 8080, "protocol": "http", "publish": {"route": {"host": "a.example", "path": "/x", "tls": "cert"}}},
            {"name": "metrics", "port": 9090, "protocol": "tcp", "publish": {"host_port": 9090}},
            {"name": "dns", "port": 53, "protocol": "udp", "publish": "internal"},
        ]))
        .unwrap(),
        probes: Probes {
            startup: Some(probe(json!({"exec": {"command": ["/ok"]}}))),
            readiness: Some(probe(json!({"http": {"path": "/r", "port": 8080, "headers": {"X-A": "b"}}}))),
            liveness: Some(probe(json!({"grpc": {"service": "s", "port": 9090}}))),
        },
        mounts: from(json!([
            {"volume": {"name": "data", "target": "/data", "read_only": true}},
            {"bind": {"source": "/etc/ssl", "target": "/ssl", "read_only": true}},
            {"tmpfs": {"target": "/tmp", "size": "64Mi"}},
            {"secret": {"name": "key", "target": "/key"}},
            {"config": {"name": "title", "target": "/title"}},
        ])),
        secrets: BTreeMap::from([("key".parse().unwrap(), 3)]),
        configs: BTreeMap::from([("title".parse().unwrap(), "Blog".into())]),
        volumes: BTreeMap::from([("data".parse().unwrap(), VolumeScope::PerReplica)]),
        peers: BTreeMap::from([("users".parse().unwrap(), 5432)]),
        reaches: Some(["users".parse().unwrap()].into()),
        networks: ["back".parse().unwrap()].into(),
        placement: Placement {
            constraints: BTreeMap::from([("disk".into(), "ssd".into())]),
            spread: Some("zone".into()),
        },
        service_account: Some(ServiceAccount { token: true }),
        stop_signal: Signal::Int,
        stop_grace: Duration::from_millis(2500),
        restart: RestartPolicy::OnFailure,
        labels: BTreeMap::from([("team".into(), "blue".into())]),
        restarted: 7,
    }
}

fn resolved(app: App) -> ResolvedApp {
    let image = ResolvedImage { source: "x".into(), digest: "sha256:01".into() };
    ResolvedApp {
        images: app.workloads().map(|(name, _)| (name.clone(), image.clone())).collect(),
        secrets: app.secrets.keys().map(|name| (name.clone(), 1)).collect(),
        restarts: BTreeMap::new(),
        app,
    }
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/spec_hash")
}

/// What there was when the first files were written.
fn everything_then() -> Template {
    Template { service_account: None, ..everything() }
}

#[test]
fn hashes_are_those_that_were_written_down() {
    let all = [
        ("minimal", minimal()),
        ("web", web()),
        ("everything", everything_then()),
        ("everything_with_account", everything()),
    ];
    for (name, template) in all {
        let file = golden().join(format!("{name}.json"));
        if !file.exists() && std::env::var_os("UPDATE_GOLDEN").is_some() {
            let value = json!({"hash": SpecHash::of(&template), "template": template});
            std::fs::create_dir_all(golden()).unwrap();
            std::fs::write(&file, serde_json::to_string_pretty(&value).unwrap() + "\n").unwrap();
        }
        let value: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        let kept: Template = serde_json::from_value(value["template"].clone()).unwrap();
        assert_eq!(kept, template, "{name}: the template is read as it was");
        let hash = SpecHash::from_text(value["hash"].as_str().unwrap());
        assert_eq!(SpecHash::of(&template), hash, "{name}");
        assert!(hash.matches(&template));
    }
}

/// A value that differs, of the same kind; several where only some of them are valid.
fn others(value: &Value) -> Vec<Value> {
    const WORDS: [&str; 12] = [
        "other",
        "/other",
        "9s",
        "http",
        "tcp",
        "shared",
        "never",
        "SIGHUP",
        "9m",
        "9Ki",
        "sha256:09",
        "public",
    ];
    match value {
        Value::String(_) => WORDS.iter().map(|word| json!(word)).collect(),
        Value::Number(n) => vec![json!(n.as_u64().unwrap() + 1)],
        Value::Bool(b) => vec![json!(!b)],
        other => panic!("no leaf: {other}"),
    }
}

fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            map.iter().for_each(|(k, v)| leaves(v, &format!("{path}/{k}"), found))
        }
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(i, v)| leaves(v, &format!("{path}/{i}"), found));
        }
        _ => found.push(path.to_owned()),
    }
}

#[test]
fn every_field_changes_the_hash_but_source_and_publish() {
    let template = everything();
    let value = serde_json::to_value(&template).unwrap();
    let mut paths = Vec::new();
    leaves(&value, "", &mut paths);
    assert!(paths.len() > 60, "{}", paths.len());
    for path in paths {
        let was = value.pointer(&path).unwrap();
        let mut tried = 0;
        for other in others(was).into_iter().filter(|other| other != was) {
            let mut changed = value.clone();
            *changed.pointer_mut(&path).unwrap() = other;
            let Ok(changed) = serde_json::from_value::<Template>(changed) else { continue };
            tried += 1;
            let same = SpecHash::of(&changed) == SpecHash::of(&template);
            let free = path == "/image/source" || path.contains("/publish");
            assert_eq!(same, free, "{path}");
        }
        assert!(tried > 0, "nothing else fits at {path}");
    }
}

#[test]
fn every_field_left_out_changes_the_hash() {
    let value = serde_json::to_value(everything()).unwrap();
    let required = ["image", "stop_grace"];
    let fields: BTreeSet<&str> = value.as_object().unwrap().keys().map(String::as_str).collect();
    // None is at its default in `everything`, else it would not be serialised.
    let debug = format!("{:#?}", everything());
    let declared = debug.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(": "));
    let declared: BTreeSet<&str> =
        declared.map(|(field, _)| field).filter(|field| !field.starts_with(' ')).collect();
    assert!(declared.len() > 20);
    assert_eq!(declared, fields);
    for field in fields {
        let mut changed = value.clone();
        changed.as_object_mut().unwrap().remove(field);
        match serde_json::from_value::<Template>(changed) {
            Ok(changed) => {
                assert_ne!(SpecHash::of(&changed), SpecHash::of(&everything()), "{field}")
            }
            Err(_) => assert!(required.contains(&field), "{field}"),
        }
    }
}

#[test]
fn replicas_updates_and_what_waits_change_nothing() {
    let yaml = |web: &str, rest: &str| {
        format!(
            "{{name: a, services: {{web: {{image: {{binary: /w}}, {web}}}, db: {{image: {{binary: /d}}, \
             ports: [{{port: 1}}]}}, {rest}}}}}"
        )
    };
    let hash = |web: &str, rest: &str| {
        let app = App::from_yaml(&yaml(web, rest)).unwrap();
        SpecHash::of(&resolved(app).template(&"web".parse().unwrap()).unwrap())
    };
    let plain = hash("depends_on: {db: healthy}", "");
    for web in [
        "depends_on: {db: healthy}, replicas: 3",
        "depends_on: {db: started}",
        "connects_to: [db]",
        "depends_on: {db: healthy}, update: {strategy: recreate, monitor: 5s}",
    ] {
        assert_eq!(hash(web, ""), plain, "{web}");
    }
    let more = "more: {image: {binary: /m}, ports: [{port: 2}], connects_to: [db]}";
    assert_eq!(hash("depends_on: {db: healthy}", more), plain, "one service more rolls no other");
    assert_ne!(hash("", ""), plain, "whose address it is told does count");
}

#[test]
fn an_unknown_version_never_matches() {
    let hash = SpecHash::of(&minimal());
    for text in [hash.as_str().replace("v1:", "v2:"), hash.as_str()[3..].to_owned(), String::new()]
    {
        assert!(!SpecHash::from_text(text.clone()).matches(&minimal()), "{text}");
    }
}

#[test]
fn the_order_of_a_file_is_nothing() {
    let one = r#"{"stop_grace":{"secs":10,"nanos":0},"env":{"B":"2","A":"1"},"image":{"digest":"d","source":"s"}}"#;
    let two = r#"{"image":{"source":"s","digest":"d"},"env":{"A":"1","B":"2"},"stop_grace":{"nanos":0,"secs":10}}"#;
    let read = |text| SpecHash::of(&serde_json::from_str(text).unwrap());
    assert_eq!(read(one), read(two));
}
