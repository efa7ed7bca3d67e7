//! Bringing one service to a revision.

use std::sync::Arc;

use deploykit_core::model::Replicas;
use deploykit_core::{ErrorKind, Result};
use futures_util::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use kube::api::DynamicObject;
use serde_json::json;

use super::{Work, certificate, not_overtaken, reach, staged, wait};
use crate::beside::Object;
use crate::cluster::{Cluster, says};
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
    let mut laying = Some(work.view.laying().await);
    let mut part = work.part().await?;
    remove_ended(work).await?;
    certificate::ensure(work).await?;
    let beside = staged::place(work, &mut part, &service.update).await?;
    let manifests = objects::service(&part)?;
    let is_workload = |m: &Manifest| WORKLOADS.contains(&m.resource.kind.as_str());
    let Some(place) = manifests.iter().position(is_workload) else { return Ok(()) };
    let workload = &manifests[place];
    let mut rollout = wait::Rollout::new(work, &part, &workload.resource.kind, &workload.name);
    let is_staged = staged::is_staged(&service.update);
    if is_staged && !beside.is_empty() {
        laying = None;
        work.lay(&part).await?;
        staged::run(&mut rollout, work, &part, (service, &manifests), &beside).await?;
    }
    apply_all(work, &manifests[..place]).await?;
    work.view.laid(laying).await;
    let apply = || apply_workload(work, workload, service.replicas);
    let applied = not_overtaken(apply).await?;
    let generation = applied.metadata.generation.unwrap_or(0);
    apply_all(work, &manifests[place + 1..]).await?;
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

/// Applies objects of which none needs another, and returns when all have been answered: what was
/// sent must not arrive after another has failed.
async fn apply_all(work: &Work<'_>, manifests: &[Manifest]) -> Result<()> {
    let applied = join_all(manifests.iter().map(|manifest| work.apply(manifest))).await;
    applied.into_iter().try_for_each(|applied| applied.map(drop))
}

/// Pods that have ended for good (evicted ones) are nobody's any more.
async fn remove_ended(work: &Work<'_>) -> Result<()> {
    let pods = work.view.look(|live| live.pods.of(work.name)).await?;
    let failed =
        |pod: &&Arc<Pod>| pod.status.as_ref().is_some_and(|s| says(s.phase.clone(), "Failed"));
    let ended: Vec<Object> = pods.iter().filter(failed).map(|pod| Object::of(&**pod)).collect();
    work.delete(&ended).await
}

/// Applies what keeps the instances, and hands the number of replicas over: to an autoscaler, or
/// back from one.
async fn apply_workload(
    work: &Work<'_>,
    manifest: &Manifest,
    replicas: Replicas,
) -> Result<DynamicObject> {
    let found = work.found(manifest).await?;
    let autoscaled = matches!(replicas, Replicas::Autoscale(_));
    let mut back = false;
    work.cluster.check(&work.context.fence).await?;
    if let Some(found) = &found {
        if autoscaled {
            keep_replicas(work.cluster, manifest, &found.data["spec"]["replicas"]).await?;
            // What was kept has made a new version of the object.
            let found = work.cluster.found(manifest).await?;
            return work.cluster.apply(manifest, found.as_ref(), false).await;
        }
        for old in work.view.beside().await?.of(work.name) {
            if old.resource.kind == "HorizontalPodAutoscaler" {
                work.cluster.delete(&old.resource, &old.name, old.uid.clone()).await?;
                back = true;
            }
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
    let mut had = work.view.look(|live| live.keepers(work.name)).await?;
    had.extend_from_slice(work.view.beside().await?.of(work.name));
    had.retain(|object| !manifests.iter().any(|m| m.resource.kind == object.resource.kind));
    work.delete(&had).await
}
