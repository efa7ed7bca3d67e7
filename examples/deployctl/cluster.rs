//! What only clusters have.

use std::process::ExitCode;

use deploykit::Result;
use deploykit::k8s::{K8s, K8sConfig, render as yaml};
use deploykit::model::App;

use crate::Backend;
use crate::output::Output;

fn config(backend: &Backend) -> Result<K8sConfig> {
    K8sConfig::from_url(backend.on.as_deref().unwrap_or("k8s://"))
}

/// Writes the objects of an app as YAML.
pub async fn render(backend: &Backend, app: App) -> Result<()> {
    print!("{}", yaml(&config(backend)?, app).await?);
    Ok(())
}

/// Lists the rights that are missing; the exit code is 1 where there are some.
pub async fn doctor(backend: &Backend, output: &Output) -> Result<ExitCode> {
    let cluster = K8s::open(config(backend)?).await?;
    let missing = cluster.missing_rights().await?;
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    output.value(&missing, || match missing.is_empty() {
        true => "every right that deploys need is there".to_owned(),
        false => format!("missing: {}", missing.join(", ")),
    })?;
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
