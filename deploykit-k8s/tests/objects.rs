//! What an app is as objects: golden files, so that a change of the library that would roll what
//! runs is seen. `UPDATE_GOLDEN=1` writes them anew.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use deploykit_core::ResolvedApp;
use deploykit_core::model::*;
use deploykit_k8s::{K8sConfig, Public, render, render_resolved};
use serde_json::json;

fn config() -> K8sConfig {
    K8sConfig::from_url("k8s://?registry=registry.example:5000").unwrap()
}

fn resolved(app: App) -> ResolvedApp {
    let image = |workload: Workload<'_>| ResolvedImage {
        source: workload.image.to_string(),
        digest: format!("sha256:{}", "ab".repeat(32)),
    };
    let images = app.workloads().map(|(name, workload)| (name.clone(), image(workload))).collect();
    let secrets = app.secrets.keys().map(|name| (name.clone(), 2)).collect();
    ResolvedApp { app, images, secrets, restarts: Default::default() }
}

fn check(name: &str, config: &K8sConfig, app: App) {
    let rendered = render_resolved(config, &resolved(app)).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, &rendered).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(rendered == golden, "{name} is not as it was:\n{rendered}");
}

fn refused(app: App) -> deploykit_core::Error {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(render(&config(), app)).unwrap_err()
}

fn binary(name: &str) -> ServiceBuilder {
    Service::build(name, ImageSpec::binary(format!("target/release/{name}")))
}

#[test]
fn an_app_of_executables() {
    let app = App::build("blog")
        .volume("data", VolumeScope::Shared)
        .config("title", "A blog\n")
        .job(
            Job::build("migrate", ImageSpec::binary("target/release/blog"))
                .arg("migrate")
                .volume("data"),
        )
        .service(binary("store").port(Port::tcp(5432)).volume("data").update(Update::recreate()))
        .service(
            binary("web")
                .replicas(3)
                .port(Port::http(8080).public())
                .readiness(Probe::http("/healthz"))
                .env("PRICE", "$5 `id` \"'")
                .secret("db")
                .config("title")
                .connects_to("store")
                .update(Update::rolling().surge(2).monitor(Duration::from_millis(300))),
        )
        .validate()
        .unwrap();
    check("executables.yaml", &config(), app);
}

#[test]
fn everything_that_a_service_may_say() {
    let image = ImageSpec::Reference(ImageRef::new("registry.example/team/search:1.2").unwrap());
    let search = Service::build("search", image)
        .autoscale(Autoscale { min: 2, max: 9, target_cpu: Percent::new(60).unwrap() })
        .user("1000:2000")
        .port(Port::http(9200))
        .port(Port::udp(9300).named(PortName::new("gossip").unwrap()))
        .volume("own")
        .update(Update::rolling().surge(0).unavailable(1))
        .liveness(Probe::grpc())
        .mount(Mount::Tmpfs(TmpfsMount { target: "/scratch".into(), size: None }))
        .stop_grace(Duration::from_secs(30))
        .resources(Resources {
            cpu_request: "250m".parse().ok(),
            memory_limit: "1Gi".parse().ok(),
            ..Resources::default()
        });
    let mut app = App::build("shop")
        .volume("own", VolumeScope::PerReplica)
        .service(search)
        .service(binary("node-agent").global())
        .validate()
        .unwrap();
    let search = app.services.get_mut("search").unwrap();
    search.placement.spread = Some("topology.kubernetes.io/zone".into());
    search.placement.constraints.insert("disk".into(), "ssd".into());
    let mut config = config();
    config.public = Public::LoadBalancer;
    config.storage_class = Some("fast".into());
    config.pull_secrets = vec!["team".into()];
    check("everything.yaml", &config, app);
}

#[test]
fn what_is_reached_from_where_and_what_runs_when() {
    let route = |host: &str, path: &str, tls| {
        Publish::Route(Route { host: host.into(), path: path.into(), tls })
    };
    let certificate = SecretName::new("certificate").unwrap();
    let web = binary("web")
        .port(Port::http(8080).publish(route("shop.example", "/", Some(certificate))))
        .port(Port::http(8081).named(PortName::new("docs").unwrap()).publish(route(
            "docs.example",
            "/manual",
            None,
        )))
        .connects_to("store");
    let cleanup = Job::build("cleanup", ImageSpec::binary("target/release/shop"))
        .schedule("30 3 * * *")
        .retries(2)
        .timeout(Duration::from_secs(600))
        .connects_to("store");
    let app = App::build("shop")
        .isolated()
        .service(web)
        .service(binary("store").port(Port::tcp(5432)))
        .job(cleanup)
        .validate()
        .unwrap();
    let url = "k8s://?registry=registry.example:5000&ingress_class=nginx&network_policies";
    check("reached.yaml", &K8sConfig::from_url(url).unwrap(), app);
}

#[test]
fn what_the_model_has_no_word_for() {
    let app = App::build("shop")
        .raw(
            "k8s",
            "limits",
            json!({
                "apiVersion": "v1",
                "kind": "LimitRange",
                "metadata": { "name": "shop-limits", "labels": { "team": "shop" } },
                "spec": { "limits": [{ "type": "Pod", "max": { "cpu": "2" } }] },
            }),
        )
        .raw(
            "k8s",
            "widgets",
            json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": { "name": "widgets.deploykit.test" },
                "spec": {
                    "group": "deploykit.test",
                    "names": { "kind": "Widget", "plural": "widgets" },
                    "scope": "Namespaced",
                    "versions": [{
                        "name": "v1",
                        "served": true,
                        "storage": true,
                        "schema": { "openAPIV3Schema": { "type": "object" } },
                    }],
                },
            }),
        )
        .service(binary("web"))
        .validate()
        .unwrap();
    check("raw.yaml", &config(), app);
}

#[test]
fn accounts_and_names_of_instances() {
    let store = binary("store")
        .replicas(3)
        .port(Port::tcp(5432))
        .endpoint_mode(EndpointMode::Dnsrr)
        .volume("own")
        .update(Update::rolling().surge(0).unavailable(1))
        .service_account(ServiceAccount::default());
    let token = ServiceAccount { token: true };
    let backup = Job::build("backup", ImageSpec::binary("target/release/shop"))
        .schedule("0 4 * * *")
        .service_account(token);
    let app = App::build("shop")
        .volume("own", VolumeScope::PerReplica)
        .service(store)
        .service(binary("operator").service_account(token))
        .job(backup)
        .validate()
        .unwrap();
    check("accounts.yaml", &config(), app);
}

#[test]
fn a_raw_object_that_cannot_be_applied_is_refused() {
    let object = |manifest: serde_json::Value, path: &str, what: &str| {
        let app = App::build("shop").service(binary("web")).raw("k8s", "it", manifest);
        let app = app.raw(
            "k8s",
            "a",
            json!({ "apiVersion": "v1", "kind": "X", "metadata": { "name": "x" } }),
        );
        let error = refused(app.validate().unwrap());
        let said = error.to_string();
        assert!(said.contains(&format!("raw.k8s.{path}: {what}")), "{said}");
    };
    let named = json!({ "name": "one" });
    object(json!({ "kind": "X", "metadata": named }), "it.apiVersion", "`apiVersion` is missing");
    object(json!({ "apiVersion": "v1", "metadata": named }), "it.kind", "`kind` is missing");
    object(json!({ "apiVersion": "v1", "kind": "X" }), "it.metadata.name", "`metadata.name` is");
    let elsewhere = json!({ "name": "one", "namespace": "other" });
    let elsewhere = json!({ "apiVersion": "v1", "kind": "X", "metadata": elsewhere });
    object(elsewhere, "it.metadata.namespace", "objects are put into the namespace");
    let labels = json!({ "name": "one", "labels": { "a": 1 } });
    let labels = json!({ "apiVersion": "v1", "kind": "X", "metadata": labels });
    object(labels, "it.metadata.labels", "it is no mapping of texts");
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": named });
    object(secret, "it", "the value of a Secret would be kept");
    let twice = json!({ "apiVersion": "v1", "kind": "X", "metadata": { "name": "x" } });
    object(twice, "it", "`a` is the same object");
}

#[test]
fn a_user_by_name_is_refused() {
    let app = App::build("blog").service(binary("web").user("www-data")).validate().unwrap();
    let error = render_resolved(&config(), &resolved(app)).unwrap_err().to_string();
    assert!(error.contains("`www-data` is no user by number"), "{error}");
}
