//! The behaviour kit on the cluster of `DEPLOYKIT_TEST_KUBECONFIG`, with the images pushed to
//! `DEPLOYKIT_TEST_REGISTRY`. The apps of all tests share the namespace of the kubeconfig.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

use std::process::ExitCode;
use std::sync::Arc;

use deploykit_conformance::{Bed, Connected, Kit};
use deploykit_core::model::ImageSpec;
use deploykit_k8s::{K8s, K8sConfig};

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
    Kit::new(connect).image(ImageSpec::binary(program), within).run()
}

async fn connect(bed: Bed) -> Connected {
    let mut config = K8sConfig::default();
    config.kubeconfig = Some(bed.env(KUBECONFIG)?.into());
    config.registry = Some(bed.env(REGISTRY)?);
    Ok(Arc::new(K8s::open(config).await?))
}
