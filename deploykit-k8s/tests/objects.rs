//! What an app is as objects: golden files, so that a change of the library that would roll what
//! runs is seen. `UPDATE_GOLDEN=1` writes them anew.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use deploykit_core::ResolvedApp;
use deploykit_core::model::*;
use deploykit_k8s::{K8sConfig, render_resolved};

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
fn a_user_by_name_is_refused() {
    let app = App::build("blog").service(binary("web").user("www-data")).validate().unwrap();
    let error = render_resolved(&config(), &resolved(app)).unwrap_err().to_string();
    assert!(error.contains("`www-data` is no user by number"), "{error}");
}
