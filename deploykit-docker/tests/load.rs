//! A rolling update behind a published port while requests come in, and what Compose makes of the
//! same change.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use common::docker;
use common::traffic::{Outcome, send};
use deploykit_conformance::{apps, testapp};
use deploykit_core::memory::dial;
use deploykit_core::model::{App, AppName, ImageSpec, Port};
use deploykit_core::{Change, Deployer, Silent};
use deploykit_docker::{DockerConfig, Host};
use libtest_mimic::{Arguments, Trial};
use tokio::sync::Notify;

fn main() -> ExitCode {
    // What is deployed is this program itself.
    if let Some(code) = testapp::run_if_asked() {
        return code;
    }
    let engines = [("debian", "DEPLOYKIT_TEST_DOCKER"), ("current", "DEPLOYKIT_TEST_DOCKER_NEW")];
    let mut trials = Vec::new();
    for (name, variable) in engines {
        let Some(host) = common::engine(variable) else { continue };
        trials.push(Trial::test(format!("a_rolling_update_loses_nothing_on_{name}"), move || {
            tokio::runtime::Runtime::new().unwrap().block_on(update_under_load(host));
            Ok(())
        }));
    }
    let mut arguments = Arguments::from_args();
    // Each is to have the machine for itself.
    arguments.test_threads = Some(1);
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn seconds() -> Duration {
    let seconds = std::env::var("DEPLOYKIT_LOAD_SECONDS").ok().map(|text| text.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(10))
}

async fn update_under_load(host: Host) {
    let name = AppName::new(format!("kit-{:x}-load", std::process::id())).unwrap();
    let keys = tempfile::tempdir().unwrap();
    let config = DockerConfig::new(host.clone()).agent(common::agent()).keys(keys.path());
    let backend = deploykit_docker::open(config).await.unwrap();
    let deployer = Deployer::new(Arc::new(backend));
    let outcome = tokio::spawn(ours(deployer.clone(), host.clone(), name.clone())).await;
    let plan = deployer.plan(Change::Remove { app: name, volumes: true }).await.unwrap();
    deployer.apply(plan, &mut Silent).await.unwrap();
    let outcome = outcome.unwrap();
    eprintln!("deployed: {} of {} requests lost", outcome.failures.len(), outcome.sent);
    assert_eq!(outcome.failures, [] as [String; 0], "{:?}", outcome.versions);
    assert!(outcome.versions.len() == 2, "both versions have answered: {:?}", outcome.versions);
}

async fn ours(deployer: Deployer, host: Host, name: AppName) -> Outcome {
    let image = ImageSpec::binary(std::env::current_exe().unwrap());
    let app = |version: &str| {
        let web = apps::service("web", &image, version).replicas(4);
        App::build(name.as_str()).service(web).validate().unwrap()
    };
    up(&deployer, app("1")).await;
    let status = deployer.status(&name).await.unwrap();
    let endpoint = status.observation.endpoints.values().next().unwrap();
    let port = endpoint.ports[0].public.as_ref().unwrap().port;
    let enough = Arc::new(Notify::new());
    let load = tokio::spawn(send(port, seconds(), Arc::clone(&enough)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    up(&deployer, app("2")).await;
    enough.notify_one();
    let outcome = load.await.unwrap();
    if let Ok(compose) = std::env::var("DEPLOYKIT_TEST_DOCKER_COMPOSE") {
        theirs(&compose, &host, &name).await;
    }
    outcome
}

async fn up(deployer: &Deployer, app: App) {
    let ready = deployer.prepare(app).await.unwrap();
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    deployer.apply(plan, &mut Silent).await.unwrap();
}

/// One service of the same image, since Compose publishes a port for one container alone.
async fn theirs(program: &str, host: &Host, app: &AppName) {
    const PUBLISHED: u16 = 19_999;
    let ours = format!("label=io.deploykit.app={app}");
    let role = "label=io.deploykit.role=instance";
    let instances = ["ps", "--filter", &ours, "--filter", role, "--format", "{{.Image}}"];
    let image = docker(host, &instances).unwrap().remove(0);
    let Port { port, .. } = Port::http(apps::PORT);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    let compose = |version: &'static str, arguments: &'static [&'static str]| {
        let text = format!(
            "name: {app}-compose\nservices:\n  web:\n    image: {image}\n    command: [{}]\n    \
             environment: {{HOST: 0.0.0.0, PORT: '{port}', {}: '{version}'}}\n    \
             ports: ['127.0.0.1:{PUBLISHED}:{port}']\n",
            testapp::WORD,
            dial::VERSION,
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(program);
        command.arg("-f").arg(&file).args(arguments).env("DOCKER_HOST", host.to_string());
        tokio::task::spawn_blocking(move || {
            let output = command.output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        })
    };
    compose("1", &["up", "-d"]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let enough = Arc::new(Notify::new());
    let load = tokio::spawn(send(PUBLISHED, seconds(), Arc::clone(&enough)));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let updated = compose("2", &["up", "-d"]).await;
    enough.notify_one();
    let outcome = load.await;
    compose("2", &["down", "-t", "1"]).await.unwrap();
    updated.unwrap();
    let outcome = outcome.unwrap();
    eprintln!("compose: {} of {} requests lost", outcome.failures.len(), outcome.sent);
}
