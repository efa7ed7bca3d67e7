//! Volumes.

use std::time::Duration;

use deploykit_core::model::{VolumeName, VolumeScope};
use deploykit_core::{ErrorKind, Result, StepContext};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::config::K8sConfig;
use crate::error::error;
use crate::{labels, objects};

/// How long a volume may take to be gone: until the last pod that has it is.
const ENDING: Duration = Duration::from_secs(120);

/// Makes the claim of a volume. One that is there is left as it is; those of replicas are the
/// StatefulSet's to make.
pub(crate) async fn ensure(
    cluster: &Cluster,
    config: &K8sConfig,
    context: &StepContext,
    name: &VolumeName,
) -> Result<()> {
    let app = &context.fence.app;
    let scope = context.target.app.volumes.get(name).map(|volume| volume.scope);
    if scope == Some(VolumeScope::PerReplica) {
        return Ok(());
    }
    let manifest = objects::claim(config, app, name);
    if cluster.found(&manifest).await?.is_some() {
        return Ok(());
    }
    cluster.check(&context.fence).await?;
    cluster.apply(&manifest, None, false).await.map(drop)
}

/// Removes a volume and its data, and returns when it is gone.
pub(crate) async fn remove(
    cluster: &Cluster,
    context: &StepContext,
    name: &VolumeName,
) -> Result<()> {
    cluster.check(&context.fence).await?;
    let selector = format!("{}={},{}={name}", labels::APP, context.fence.app, labels::VOLUME);
    let deadline = Instant::now() + ENDING;
    cluster.delete_all::<PersistentVolumeClaim>(&selector).await?;
    let mut pause = Duration::from_millis(50);
    while !cluster.list::<PersistentVolumeClaim>("look for volumes", &selector).await?.is_empty() {
        if Instant::now() >= deadline {
            let message = "the volume is still in use by a pod";
            return Err(
                error(ErrorKind::Timeout, "remove the volume", message).with("volume", name)
            );
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
    Ok(())
}
