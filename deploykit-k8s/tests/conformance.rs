//! The behaviour kit on the cluster of `DEPLOYKIT_TEST_KUBECONFIG`, with the images pushed to
//! `DEPLOYKIT_TEST_REGISTRY`. The apps of all tests share the namespace of the kubeconfig.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use deploykit_conformance::{Bed, Connected, Kit};
use deploykit_core::model::{ImageRef, ImageSpec};
use deploykit_k8s::{K8s, K8sConfig};
use deploykit_oci::{Layout, Recipe, Reference, RegistryClient};
use serde_json::json;

const KUBECONFIG: &str = "DEPLOYKIT_TEST_KUBECONFIG";
const REGISTRY: &str = "DEPLOYKIT_TEST_REGISTRY";

fn main() -> ExitCode {
    let missing = [KUBECONFIG, REGISTRY].into_iter().find(|name| std::env::var(name).is_err());
    if let Some(name) = missing.filter(|_| std::env::args().nth(1).as_deref() != Some("testapp")) {
        if std::env::var("CI").is_ok() {
            eprintln!("{name} is not set: testbed/up kubernetes registry tells it");
            return ExitCode::FAILURE;
        }
        println!("skipped: {name} is not set; testbed/up kubernetes registry tells it");
        return ExitCode::SUCCESS;
    }
    let program = std::env::current_exe().unwrap();
    let within = format!("/usr/local/bin/{}", program.file_name().unwrap().to_str().unwrap());
    let kit = Kit::new(connect).image(ImageSpec::binary(&program), within).raw(|app| {
        let metadata = json!({ "name": format!("{app}-raw") });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata })
    });
    match std::env::args().nth(1).as_deref() {
        Some("testapp") => kit.run(),
        _ => kit.reference(pushed(&program)).run(),
    }
}

/// The test application in the registry.
fn pushed(program: &Path) -> ImageRef {
    let registry = std::env::var(REGISTRY).unwrap();
    let name = format!("{registry}/kit/testapp:{:x}", std::process::id());
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::open(folder.path()).unwrap();
    let mut recipe = Recipe::binary(program).unwrap();
    // Pods run nothing as root unless the app says so.
    recipe.execution.user = "65532:65532".to_owned();
    let to = Reference::parse_normalized(&name).unwrap();
    let client = RegistryClient::default();
    let push = client.build_and_push(recipe, &layout, &to, &[]);
    tokio::runtime::Runtime::new().unwrap().block_on(push).unwrap();
    ImageRef::new(name).unwrap()
}

async fn connect(bed: Bed) -> Connected {
    let mut config = K8sConfig::default();
    config.kubeconfig = Some(bed.env(KUBECONFIG)?.into());
    config.registry = Some(bed.env(REGISTRY)?);
    Ok(Arc::new(K8s::open(config).await?))
}
