//! The README says what is so: its program is an example, its table is what backends declare.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "local", feature = "docker", feature = "k8s"))]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use deploykit::{Capabilities, Deployer, Feature, Reconciler, memory};

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// What stands between two marks, each alone on its line.
fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("{start}\n")).expect("the start mark");
    let (inside, _) = rest.split_once(&format!("\n{end}")).expect("the end mark");
    inside
}

#[test]
fn its_program_is_the_example() {
    let readme = read("README.md");
    assert_eq!(between(&readme, "```rust", "```").trim(), read("examples/deploy.rs").trim());
}

#[tokio::test]
async fn its_table_is_what_backends_declare() {
    let folder = tempfile::tempdir().unwrap();
    deploykit::init();
    let local = deploykit::open(&format!("local://{}", folder.path().display())).await.unwrap();
    let memory = Deployer::new(Arc::new(Reconciler::new(memory::Host::new())));
    let cluster = deploykit::k8s::K8sConfig::from_url("k8s://?registry=registry.example").unwrap();
    let table = table(&[
        ("local", local.backend().capabilities()),
        ("docker", &deploykit::docker::capabilities()),
        ("k8s", &deploykit::k8s::capabilities(&cluster)),
        ("memory", memory.backend().capabilities()),
    ]);
    let readme = read("README.md");
    let found = between(&readme, "<!-- what backends declare -->", "<!-- end -->");
    assert!(found == table, "the README's table should be:\n{table}");
}

fn table(backends: &[(&str, &Capabilities)]) -> String {
    let mut table = String::from("| |");
    for (name, _) in backends {
        write!(table, " {name} |").unwrap();
    }
    write!(table, "\n|---|{}", "---|".repeat(backends.len())).unwrap();
    let all: Vec<&Capabilities> = backends.iter().map(|(_, declared)| *declared).collect();
    let mut row = |name: &str, value: &dyn Fn(&Capabilities) -> String| {
        write!(table, "\n| {name} |").unwrap();
        for capabilities in &all {
            write!(table, " {} |", value(capabilities)).unwrap();
        }
    };
    row("crashed instances are restarted", &|c| word(&c.self_heal));
    row("a late deployer's changes", &|c| word(&c.fencing));
    row("instances outlive the deployer", &|c| yes(c.survives_deployer));
    row("secrets can be read back", &|c| yes(c.secrets_readable));
    row("commands can have a terminal", &|c| yes(c.terminals));
    let known: BTreeSet<Feature> = Feature::ALL.iter().copied().collect();
    for feature in known {
        row(&format!("`{}`", word(&feature)), &|c| yes(c.has(feature)));
    }
    table
}

fn yes(value: bool) -> String {
    if value { "yes" } else { "no" }.to_owned()
}

/// The word that a value is written as.
fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).unwrap().as_str().unwrap().to_owned()
}
