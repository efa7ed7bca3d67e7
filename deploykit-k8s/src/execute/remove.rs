//! Removing everything of a service or job.

use std::time::Duration;

use deploykit_core::{ErrorKind, InstanceChange, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use tokio::time::Instant;

use super::Work;
use crate::error::error;

/// How long pods may take to be gone, beyond their grace period.
const ENDING: Duration = Duration::from_secs(120);
/// How often it is looked anew, for what a watch may have missed.
const LOOK: Duration = Duration::from_secs(2);

/// Removes everything of a service or job: first what makes instances, then, when these are gone,
/// the address that they were reached at.
pub(crate) async fn service(work: &Work<'_>) -> Result<()> {
    let selector = work.selector();
    let cluster = work.cluster;
    cluster.check(&work.context.fence).await?;
    cluster.delete_all::<CronJob>(&selector).await?;
    cluster.delete_all::<Ingress>(&selector).await?;
    cluster.delete_all::<HorizontalPodAutoscaler>(&selector).await?;
    cluster.delete_all::<Deployment>(&selector).await?;
    cluster.delete_all::<StatefulSet>(&selector).await?;
    cluster.delete_all::<DaemonSet>(&selector).await?;
    cluster.delete_all::<Job>(&selector).await?;
    let grace = work.context.target.app.workload(work.name).map(|w| w.stop_grace);
    let deadline = Instant::now() + grace.unwrap_or_default() + ENDING;
    let mut changes = work.view.changes();
    let mut before: Vec<String> = Vec::new();
    loop {
        let pods = cluster.list::<Pod>("look for pods", &selector).await?;
        let now: Vec<String> = pods.iter().map(ResourceExt::name_any).collect();
        for id in before.iter().filter(|id| !now.contains(id)) {
            work.report(id, InstanceChange::Removed);
        }
        if now.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            let message = format!("these pods do not end: {}", now.join(", "));
            return Err(
                error(ErrorKind::Timeout, "remove the service", message).with("service", work.name)
            );
        }
        before = now;
        changes.mark_unchanged();
        // Either a change is told, or it is time to look again.
        let _ = tokio::time::timeout(LOOK, changes.changed()).await;
    }
    cluster.delete_all::<Service>(&selector).await?;
    cluster.delete_all::<PodDisruptionBudget>(&selector).await?;
    cluster.delete_all::<NetworkPolicy>(&selector).await?;
    Ok(())
}
