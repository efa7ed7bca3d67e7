//! Many services in one app, on nodes that are kwok's: what runs there is ready at once.

use std::time::{Duration, Instant};

use deploykit_core::model::*;
use deploykit_core::{Change, Silent};
use serde_json::json;

use super::{Bed, image, kubectl};

const SERVICES: usize = 1000;
const NODES: usize = 10;
const LABEL: &str = "deploykit.test/scale";

/// Nodes of kwok's, which end with the test.
struct Nodes;

impl Nodes {
    fn new() -> Self {
        let node = |number: usize| {
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": format!("scale-{number}"),
                    "labels": { LABEL: "yes" },
                    "annotations": { "kwok.x-k8s.io/node": "fake" },
                },
            })
        };
        let nodes: Vec<_> = (0..NODES).map(node).collect();
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": nodes });
        kubectl(&["apply", "--filename", "-"], &list.to_string());
        Self
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        kubectl(&["delete", "nodes", "--selector", LABEL, "--wait=false"], "");
    }
}

/// The most memory that this program has had, in MiB.
fn most_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

fn app(bed: &Bed, changed: Option<usize>) -> App {
    let service = |number: usize| {
        let version = if changed == Some(number) { "2" } else { "1" };
        let update = Update::rolling().progress_deadline(Duration::from_secs(1200));
        Service::build(format!("s{number}"), image())
            .port(Port::tcp(8080))
            .env("VERSION", version)
            .update(update)
    };
    let begun = bed.build().keep_revisions(3);
    let mut app = (0..SERVICES).fold(begun, |app, n| app.service(service(n))).validate().unwrap();
    for service in app.services.values_mut() {
        service.placement.constraints.insert(LABEL.into(), "yes".into());
    }
    app
}

pub(crate) async fn a_thousand_services() {
    let _nodes = Nodes::new();
    let bed = Bed::new().await;
    let mut after_first = 0;
    for (what, changed, expected) in [
        ("all new", None, SERVICES + 1),
        ("nothing changed", None, 0),
        ("one changed", Some(500), 2),
        ("that one back", None, 2),
        ("another changed", Some(1), 2),
    ] {
        let begun = Instant::now();
        let ready = bed.deployer.prepare(app(&bed, changed)).await.unwrap();
        let plan = bed.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
        let planned = begun.elapsed();
        let steps = plan.steps().len();
        assert_eq!(steps, expected, "{what}");
        let begun = Instant::now();
        bed.deployer.apply(plan, &mut Silent).await.unwrap();
        let (applied, most) = (begun.elapsed(), most_memory());
        println!(
            "{SERVICES} services, {what}: {steps} steps, planned in {:.1} s, applied in {:.1} s, \
             at most {most} MiB",
            planned.as_secs_f64(),
            applied.as_secs_f64(),
        );
        match after_first {
            0 => after_first = most,
            // What comes later needs no more than the first time did.
            first => assert!(most <= first + first / 4, "{most} MiB after {first} MiB"),
        }
    }
    let begun = Instant::now();
    bed.down().await;
    println!("{SERVICES} services, removed in {:.1} s", begun.elapsed().as_secs_f64());
}
