//! Bringing one service to a revision.

use deploykit_core::model::Replicas;
use deploykit_core::{ErrorKind, Result};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::core::ApiResource;
use serde_json::json;

use super::{Work, certificate, reach, staged, wait};
use crate::cluster::Cluster;
use crate::error::error;
use crate::objects::{self, Manifest};

/// Who holds a number of replicas that is not the app's.
pub(super) const HANDOVER: &str = "deploykit-handover";
const WORKLOADS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];

/// Brings a service to its revision, and returns when that is out.
pub(crate) async fn run(work: &Work<'_>) -> Result<()> {
    let app = &work.context.target.app;
    let Some(service) = app.services.get(work.name) else {
        return Err(error(ErrorKind::Invalid, "roll out", "the revision has no such service")
            .with("service", work.name));
    };
    let mut part = work.part().await?;
    work.cluster.check(&work.context.fence).await?;
    remove_ended(work).await?;
    certificate::ensure(work).await?;
    let beside = staged::place(work, &mut part, &service.update).await?;
    let manifests = objects::service(&part)?;
    let is_workload = |m: &&Manifest| WORKLOADS.contains(&m.resource.kind.as_str());
    let Some(workload) = manifests.iter().find(is_workload) else { return Ok(()) };
    let mut rollout = wait::Rollout::new(work, &part, &workload.resource.kind, &workload.name);
    let mut applied = None;
    let is_staged = staged::is_staged(&service.update);
    if is_staged && !beside.is_empty() {
        for config in objects::configs(&part) {
            work.apply(&config).await?;
        }
        staged::run(&mut rollout, work, &part, (service, &manifests), &beside).await?;
    }
    for manifest in &manifests {
        if is_workload(&manifest) {
            applied = Some(apply_workload(work, manifest, service.replicas).await?);
        } else {
            work.apply(manifest).await?;
        }
    }
    let generation = applied.and_then(|object| object.metadata.generation).unwrap_or(0);
    if !is_staged && !beside.is_empty() {
        rollout.wait(&service.update, generation, usize::MAX).await?;
        for left in &beside {
            staged::delete(work, left).await?;
        }
    }
    rollout.wait(&service.update, generation, 0).await?;
    prune(work, &manifests).await?;
    reach::published(work, service.update.progress_deadline).await
}

/// Pods that have ended for good (evicted ones) are nobody's any more.
async fn remove_ended(work: &Work<'_>) -> Result<()> {
    let pods = work.cluster.list::<Pod>("look for pods", &work.selector()).await?;
    let resource = ApiResource::erase::<Pod>(&());
    let failed =
        |pod: &&Pod| pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Failed"));
    for pod in pods.iter().filter(failed) {
        work.cluster.delete(&resource, &pod.name_any(), pod.uid()).await?;
    }
    Ok(())
}

/// Applies what keeps the instances, and hands the number of replicas over: to an autoscaler, or
/// back from one.
async fn apply_workload(
    work: &Work<'_>,
    manifest: &Manifest,
    replicas: Replicas,
) -> Result<kube::api::DynamicObject> {
    let found = work.cluster.found(manifest).await?;
    let autoscaled = matches!(replicas, Replicas::Autoscale(_));
    let scaler = ApiResource::erase::<HorizontalPodAutoscaler>(&());
    let mut back = false;
    work.cluster.check(&work.context.fence).await?;
    if let Some(found) = &found {
        if autoscaled {
            keep_replicas(work.cluster, manifest, &found.data["spec"]["replicas"]).await?;
            // What was kept has made a new version of the object.
            let found = work.cluster.found(manifest).await?;
            return work.cluster.apply(manifest, found.as_ref(), false).await;
        }
        let name = crate::labels::service_object(&work.context.target.app.name, work.name);
        let old =
            work.cluster.get::<HorizontalPodAutoscaler>("look for an autoscaler", &name).await?;
        if old.is_some_and(|old| {
            old.labels().get(crate::labels::SERVICE).map(String::as_str) == Some(work.name.as_str())
        }) {
            work.cluster.delete(&scaler, &name, None).await?;
            back = true;
        }
        back = back || staged::was_handed_over(found);
    }
    work.cluster.apply(manifest, found.as_ref(), back).await
}

/// Lets another manager hold the number that is there: who gives a field up that nobody else
/// holds sets it back to its default
/// (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership>).
pub(super) async fn keep_replicas(
    cluster: &Cluster,
    manifest: &Manifest,
    replicas: &serde_json::Value,
) -> Result<()> {
    if replicas.is_null() {
        return Ok(());
    }
    let kept = Manifest {
        value: json!({
            "apiVersion": manifest.value["apiVersion"],
            "kind": manifest.value["kind"],
            "metadata": { "name": manifest.name },
            "spec": { "replicas": replicas },
        }),
        ..manifest.clone()
    };
    cluster.apply_as(HANDOVER, &kept, None, true).await.map(drop)
}

/// Removes what the service had and has no more: its Service, its autoscaler, its route,
/// what kept its instances in another way.
async fn prune(work: &Work<'_>, manifests: &[Manifest]) -> Result<()> {
    let selector = work.selector();
    macro_rules! prune {
        ($kind:ident) => {
            if !manifests.iter().any(|m| m.resource.kind == stringify!($kind)) {
                work.cluster.delete_all::<$kind>(&selector).await?;
            }
        };
    }
    prune!(Deployment);
    prune!(StatefulSet);
    prune!(DaemonSet);
    prune!(HorizontalPodAutoscaler);
    prune!(PodDisruptionBudget);
    prune!(Ingress);
    prune!(Service);
    prune!(NetworkPolicy);
    Ok(())
}
