//! Removing everything of a service or job.

use std::time::Duration;

use deploykit_core::{ErrorKind, InstanceChange, Result};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;

use super::Work;
use crate::beside::Object;
use crate::error::error;

/// How long pods may take to be gone, beyond their grace period.
const ENDING: Duration = Duration::from_secs(120);
/// How often it is looked anew, for what a watch may have missed.
const LOOK: Duration = Duration::from_secs(2);
/// What goes when no instance is left.
const LAST: [&str; 4] = ["Service", "ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"];

/// Removes everything of a service or job: first what makes instances, then, when these are gone,
/// the address that they were reached at.
pub(crate) async fn service(work: &Work<'_>) -> Result<()> {
    let beside = work.view.beside().await?.of(work.name).iter().cloned();
    let (last, mut first): (Vec<Object>, Vec<Object>) =
        beside.partition(|object| LAST.contains(&object.resource.kind.as_str()));
    first.extend(work.view.look(|live| live.keepers(work.name)).await?);
    let jobs = work.view.look(|live| live.jobs.of(work.name)).await?;
    first.extend(jobs.iter().map(|job| Object::of(&**job)));
    work.delete(&first).await?;
    let grace = work.context.target.app.workload(work.name).map(|w| w.stop_grace);
    let deadline = Instant::now() + grace.unwrap_or_default() + ENDING;
    let mut changes = work.view.changes(work.name);
    let mut before: Vec<String> = Vec::new();
    loop {
        changes.mark_unchanged();
        let pods = work.view.look(|live| live.pods.of(work.name)).await?;
        let mut now: Vec<String> = pods.iter().map(|pod| pod.name_any()).collect();
        if now.is_empty() {
            // A watch may be behind.
            let pods = work.cluster.list::<Pod>("look for pods", &work.selector()).await?;
            now = pods.iter().map(ResourceExt::name_any).collect();
        }
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
        // Either a change is told, or it is time to look again.
        let _ = tokio::time::timeout(LOOK, changes.changed()).await;
    }
    work.delete(&last).await
}
