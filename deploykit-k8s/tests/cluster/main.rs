//! What only clusters have, on that of `DEPLOYKIT_TEST_KUBECONFIG`, with the images pushed to
//! `DEPLOYKIT_TEST_REGISTRY`. This program serves as the test application, too.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod access;
mod clock;
mod coordination;
mod diagnosis;
mod drift;
mod identity;
mod images;
mod outage;
mod raw;
mod reach;
mod registry;
mod rendering;
mod traffic;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use deploykit_conformance::testapp;
use deploykit_core::memory::dial;
use deploykit_core::model::*;
use deploykit_core::{Applied, Change, Deployer, Error, Reason, Silent};
use deploykit_k8s::{K8s, K8sConfig};
use libtest_mimic::{Arguments, Trial};

const KUBECONFIG: &str = "DEPLOYKIT_TEST_KUBECONFIG";
const REGISTRY: &str = "DEPLOYKIT_TEST_REGISTRY";

macro_rules! trials {
    ($($module:ident::$name:ident),* $(,)?) => {
        vec![$(Trial::test(concat!(stringify!($module), "::", stringify!($name)), || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on($module::$name());
            Ok(())
        })),*]
    };
}

fn main() -> ExitCode {
    if let Some(code) = testapp::run_if_asked() {
        return code;
    }
    match std::env::args().nth(1).as_deref() {
        Some(traffic::LOAD) => traffic::load(),
        Some(clock::TAKE) => {
            clock::take();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let arguments = Arguments::from_args();
    let missing = [KUBECONFIG, REGISTRY].into_iter().find(|name| std::env::var(name).is_err());
    if let Some(name) = missing {
        if std::env::var("CI").is_ok() {
            eprintln!("{name} is not set: testbed/up kubernetes registry tells it");
            return ExitCode::FAILURE;
        }
        println!("skipped: {name} is not set; testbed/up kubernetes registry tells it");
        return ExitCode::SUCCESS;
    }
    let trials = trials![
        access::the_role_edit_suffices,
        access::missing_rights_are_listed,
        access::credentials_come_from_a_program,
        access::a_server_may_be_behind_a_path,
        clock::a_lock_is_right_though_a_clock_is_an_hour_off,
        coordination::leases_keep_to_the_contract,
        coordination::a_lock_changes_hands_with_growing_tokens,
        diagnosis::an_image_that_is_gone,
        diagnosis::a_registry_that_wants_a_password,
        diagnosis::too_large_for_every_node,
        diagnosis::no_node_has_the_label,
        diagnosis::a_volume_that_nobody_makes,
        diagnosis::out_of_memory,
        diagnosis::a_secret_that_is_gone,
        diagnosis::a_quota_that_is_used_up,
        diagnosis::an_admission_that_refuses,
        drift::what_others_change_is_told_and_taken_back_where_that_is_allowed,
        drift::what_others_remove_is_made_again,
        identity::an_account_of_its_own_has_its_token_where_that_is_asked_for,
        identity::a_headless_name_leads_to_each_instance,
        images::files_become_an_image_that_does_not_run_as_root,
        raw::definitions_come_before_their_objects_and_go_after_them,
        raw::a_definition_stays_while_others_use_it,
        raw::a_name_of_somebody_else_is_not_taken,
        reach::a_route_has_its_certificate,
        reach::who_reaches_whom_is_written_down,
        registry::pods_are_found_with_their_zone_while_they_are_ready,
        rendering::the_api_server_takes_it_strictly,
        traffic::an_update_fails_no_request_of_another_pod,
        traffic::what_an_autoscaler_has_chosen_stays_when_something_is_applied,
    ];
    let alone =
        trials![outage::an_api_server_is_killed_and_started_again_in_the_middle_of_an_apply];
    let alone = alone.into_iter().map(|trial| trial.with_ignored_flag(true));
    let trials = trials.into_iter().chain(alone).collect();
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A deployer, and an app's name of the test's own.
struct Bed {
    deployer: Deployer,
    app: AppName,
}

fn config() -> K8sConfig {
    let mut config = K8sConfig::default();
    config.kubeconfig = Some(std::env::var(KUBECONFIG).unwrap().into());
    config.registry = Some(std::env::var(REGISTRY).unwrap());
    config
}

impl Bed {
    async fn new() -> Self {
        Self::with(config()).await
    }

    async fn with(config: K8sConfig) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let app = AppName::new(format!("cluster-{:x}-{number}", std::process::id())).unwrap();
        Self { deployer: Deployer::new(Arc::new(K8s::open(config).await.unwrap())), app }
    }

    fn build(&self) -> AppBuilder {
        App::build(self.app.as_str())
    }

    fn only(&self, service: ServiceBuilder) -> App {
        self.build().service(service).validate().unwrap()
    }

    async fn up(&self, app: App) -> Result<Applied, Error> {
        let ready = self.deployer.prepare(app).await?;
        let plan = self.deployer.plan(Change::Deploy(Box::new(ready))).await?;
        self.deployer.apply(plan, &mut Silent).await
    }

    async fn down(self) {
        let change = Change::Remove { app: self.app.clone(), volumes: true };
        let plan = self.deployer.plan(change).await.unwrap();
        self.deployer.apply(plan, &mut Silent).await.unwrap();
        let left = self.deployer.backend().observe(&self.app).await.unwrap();
        assert!(left.is_empty() && left.volumes.is_empty(), "{left:#?}");
    }
}

fn image() -> ImageSpec {
    ImageSpec::binary(std::env::current_exe().unwrap())
}

/// A service of the test application.
fn web() -> ServiceBuilder {
    Service::build("web", image())
        .arg(testapp::WORD)
        .env(dial::VERSION, "1")
        .port(Port::http(8080).public())
        .readiness(Probe::http("/healthz"))
        .stop_grace(Duration::from_secs(2))
        .update(Update::rolling().progress_deadline(Duration::from_secs(10)))
}

/// The reasons that an error gives.
fn reasons(error: &Error) -> Vec<&Reason> {
    error.diagnoses().iter().map(|diagnosis| &diagnosis.reason).collect()
}

/// Runs kubectl with what it shall read, and returns what it prints.
fn kubectl(arguments: &[&str], input: &str) -> String {
    use std::io::Write;
    let mut child = Command::new(kubectl_path())
        .arg("--kubeconfig")
        .arg(std::env::var(KUBECONFIG).unwrap())
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "kubectl {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

fn kubectl_path() -> String {
    let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/need");
    let output = Command::new(need).arg("kubectl").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A namespace of the test's own, which ends with it.
struct Namespace(String);

impl Namespace {
    fn new(word: &str, labels: &str) -> Self {
        let name = format!("kit-{word}-{:x}", std::process::id());
        let manifest = format!(
            "apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{{labels}}}}}\n"
        );
        kubectl(&["apply", "--filename", "-"], &manifest);
        Self(name)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let arguments = ["delete", "namespace", &self.0, "--wait=false"];
        let mut command = Command::new(kubectl_path());
        command.arg("--kubeconfig").arg(std::env::var(KUBECONFIG).unwrap()).args(arguments);
        let _ = command.stdout(std::process::Stdio::null()).status();
    }
}
