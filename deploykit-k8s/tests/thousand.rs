//! A thousand services in one app, on nodes that kwok pretends, on the cluster of
//! `DEPLOYKIT_TEST_KUBECONFIG`. Nothing here is a measurement that is judged: the times are printed.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use deploykit_core::model::{App, AppName, ImageSpec, Port, Service, Update};
use deploykit_core::{Applied, Change, Deployer, Plan, Silent};
use deploykit_k8s::{K8s, K8sConfig};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::api::{Api, DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::json;

const SERVICES: usize = 1000;
/// How many instances a node takes.
const PODS: usize = 110;
/// How often one service is changed.
const CHANGES: usize = 1;
/// What tells those nodes apart.
const LABEL: (&str, &str) = ("kit/node", "pretended");

async fn client(kubeconfig: &str) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// Makes nodes for the instances of an app, and its namespace.
async fn ground(client: &Client, namespace: &str) {
    let nodes = Api::<Node>::all(client.clone());
    for number in 0..SERVICES.div_ceil(PODS) + 1 {
        let room = json!({ "cpu": "32", "memory": "256Gi", "pods": PODS.to_string() });
        let node = json!({
            "metadata": {
                "name": format!("{namespace}-{number}"),
                "annotations": { "kwok.x-k8s.io/node": "fake" },
                "labels": { LABEL.0: LABEL.1 },
            },
            "spec": { "taints": [] },
            "status": { "allocatable": room, "capacity": room },
        });
        let node = serde_json::from_value(node).unwrap();
        nodes.create(&PostParams::default(), &node).await.unwrap();
    }
    let made = json!({ "metadata": { "name": namespace } });
    let made = serde_json::from_value(made).unwrap();
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.create(&PostParams::default(), &made).await.unwrap();
}

async fn unground(client: &Client, namespace: &str) {
    let gone = DeleteParams::background();
    Api::<Namespace>::all(client.clone()).delete(namespace, &gone).await.unwrap();
}

fn app(change: usize) -> App {
    let image = ImageSpec::binary(std::env::current_exe().unwrap());
    let mut app = App::build("thousand");
    for number in 0..SERVICES {
        let mut service = Service::build(format!("service{number:04}"), image.clone())
            .port(Port::http(8080))
            .stop_grace(Duration::from_secs(1))
            // The controllers of a cluster take their time over so many.
            .update(Update::rolling().progress_deadline(Duration::from_secs(1200)));
        if number == SERVICES / 2 {
            service = service.env("CHANGE", change.to_string());
        }
        app = app.service(service);
    }
    let mut app = app.validate().unwrap();
    for service in app.services.values_mut() {
        service.placement.constraints.insert(LABEL.0.into(), LABEL.1.into());
    }
    app
}

/// The memory of this process that is in RAM, in MiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

fn told(what: &str, since: Instant) {
    println!("{what}: {:.1} s, {} MiB", since.elapsed().as_secs_f64(), resident());
}

async fn plan(deployer: &Deployer, change: usize) -> Plan {
    let ready = deployer.prepare(app(change)).await.unwrap();
    deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap()
}

async fn apply(deployer: &Deployer, plan: Plan) -> Applied {
    deployer.apply(plan, &mut Silent).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_services_in_one_app() {
    let variable = |name| std::env::var(name).expect("`testbed/soak kubernetes` starts a cluster");
    let kubeconfig = variable("DEPLOYKIT_TEST_KUBECONFIG");
    let namespace = format!("thousand-{:x}", std::process::id());
    let client = client(&kubeconfig).await;
    ground(&client, &namespace).await;
    let mut config = K8sConfig::default();
    config.kubeconfig = Some(kubeconfig.into());
    config.registry = Some(variable("DEPLOYKIT_TEST_REGISTRY"));
    config.namespace = Some(namespace.clone());
    let deployer = Deployer::new(Arc::new(K8s::open(config).await.unwrap()));

    let begun = Instant::now();
    let first = plan(&deployer, 0).await;
    told("plan", begun);
    assert!(first.steps().len() > SERVICES, "{}", first.steps().len());
    let begun = Instant::now();
    apply(&deployer, first).await;
    told("apply", begun);
    let seen = deployer.status(&AppName::new("thousand").unwrap()).await.unwrap().observation;
    assert_eq!(seen.instances.iter().filter(|instance| instance.ready).count(), SERVICES);

    let mut memory = vec![resident()];
    for change in 1..=CHANGES {
        let begun = Instant::now();
        let nothing = plan(&deployer, change - 1).await;
        assert!(nothing.is_empty(), "{nothing}");
        told("plan without a change", begun);
        let begun = Instant::now();
        let one = plan(&deployer, change).await;
        assert_eq!(one.steps().len(), 2, "one service, and what is not kept any more: {one}");
        apply(&deployer, one).await;
        told("change of one", begun);
        memory.push(resident());
    }
    let (first, last) = (memory[0], memory[CHANGES]);
    assert!(last < first + first / 2, "memory grows: {memory:?} MiB");
    unground(&client, &namespace).await;
}
