//! Blue-green and canary updates: the new instances are kept by a second Deployment, beside the one
//! that is there, and by the one alone that is left in the end.

use std::time::Duration;

use deploykit_core::model::{Replicas, Service, Strategy, Update};
use deploykit_core::{ErrorKind, Result};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::json;

use super::service::{HANDOVER, keep_replicas};
use super::{Work, made_for, wait};
use crate::error::error;
use crate::labels;
use crate::objects::{HEADLESS, Manifest, Part};

/// How long nodes may take to hear where requests go now.
const HEARING: Duration = Duration::from_secs(1);

fn spec(deployment: &Deployment) -> Option<DeploymentSpec> {
    crate::cluster::some(deployment.spec.clone())
}

fn template(deployment: &Deployment) -> Option<PodTemplateSpec> {
    spec(deployment).map(|spec| spec.template)
}

fn ready(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0)
}

/// Whether new instances are kept by another Deployment than old ones.
pub(super) fn is_staged(update: &Update) -> bool {
    matches!(update.strategy, Strategy::BlueGreen | Strategy::Canary(_))
}

/// Names the Deployment that is to keep the instances, and returns those beside it that have to go:
/// where it is changed in its place, what an update that failed or was killed has left.
pub(super) async fn place(
    work: &Work<'_>,
    part: &mut Part<'_>,
    update: &Update,
) -> Result<Vec<Deployment>> {
    let first = part.deployment.clone();
    // Which of several goes is decided by what is there now.
    let found = match is_staged(update) {
        true => work.cluster.list::<Deployment>("look for its pods", &work.selector()).await?,
        false => {
            let found = work.view.look(|live| live.deployments.of(work.name)).await?;
            found.iter().map(|deployment| (**deployment).clone()).collect()
        }
    };
    let is_new = |deployment: &&Deployment| {
        let made = template(deployment).as_ref().and_then(made_for);
        made.is_some_and(|(hash, rev)| hash.matches(&part.template) && rev == part.revision)
    };
    let new = found.iter().find(is_new).map(ResourceExt::name_any);
    if !is_staged(update) {
        let any = || found.iter().max_by_key(|d| ready(d)).map(ResourceExt::name_any);
        part.deployment = new.or_else(any).unwrap_or(first);
        let left = found.into_iter().filter(|d| d.name_any() != part.deployment);
        return Ok(left.collect());
    }
    let mut old = found;
    if let Some(new) = new {
        old.retain(|deployment| deployment.name_any() != new);
        part.deployment = new;
        return Ok(old);
    }
    // Of two earlier ones, the one that serves less is what a failed update has left.
    old.sort_by_key(|deployment| std::cmp::Reverse(ready(deployment)));
    for left in old.split_off(old.len().min(1)) {
        delete(work, &left).await?;
    }
    if old.first().is_some_and(|old| old.name_any() == first) {
        part.deployment = labels::second_object(&part.target.app.name, part.name);
    }
    Ok(old)
}

pub(super) async fn delete(work: &Work<'_>, deployment: &Deployment) -> Result<()> {
    let resource = ApiResource::erase::<Deployment>(&());
    work.cluster.check(&work.context.fence).await?;
    work.cluster.delete(&resource, &deployment.name_any(), deployment.uid()).await
}

/// Whether another manager of ours holds the number of replicas.
pub(super) fn was_handed_over(found: &DynamicObject) -> bool {
    found.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(HANDOVER))
}

/// Moves from the Deployments that are there to that of the part.
pub(super) async fn run(
    rollout: &mut wait::Rollout<'_>,
    work: &Work<'_>,
    part: &Part<'_>,
    (service, manifests): (&Service, &[Manifest]),
    old: &[Deployment],
) -> Result<()> {
    // Refused in the plan otherwise.
    let Replicas::Fixed(wanted) = service.replicas else { return Ok(()) };
    let of_kind = |kind: &str| manifests.iter().find(|m| m.resource.kind == kind);
    let Some(deployment) = of_kind("Deployment") else { return Ok(()) };
    let update = &service.update;
    let all = usize::MAX;
    let generation;
    match &update.strategy {
        Strategy::Canary(steps) => {
            let moving = Moving { work, deployment };
            for step in steps {
                let share = step.share.of(wanted).ok_or_else(|| {
                    let message = format!("{} of {wanted} is no whole number", step.share);
                    error(ErrorKind::Invalid, "roll out", message).with("service", work.name)
                })?;
                let generation = moving.grow(share).await?;
                rollout.wait(update, generation, all).await?;
                let staying = wanted - share;
                let mut left = 0;
                for old in old {
                    left += moving.shrink(old, staying.saturating_sub(left)).await?;
                }
                rollout.wait(update, generation, left as usize).await?;
                rollout.hold(step.hold).await?;
            }
            generation = moving.grow(wanted).await?;
            rollout.wait(update, generation, all).await?;
        }
        _ => {
            select_old(work, part, old).await?;
            generation = Moving { work, deployment }.grow(wanted).await?;
            rollout.wait(update, generation, all).await?;
            if let Some(manifest) = of_kind("Service") {
                let mut moved = manifest.clone();
                moved.value["spec"]["selector"][labels::REVISION] =
                    part.revision.to_string().into();
                work.apply(&moved).await?;
                tokio::time::sleep(HEARING).await;
            }
        }
    }
    for old in old {
        delete(work, old).await?;
    }
    rollout.wait(update, generation, 0).await
}

struct Moving<'a> {
    work: &'a Work<'a>,
    deployment: &'a Manifest,
}

impl Moving<'_> {
    /// Brings the new Deployment to that many instances, or leaves it with more. Returns its
    /// generation.
    async fn grow(&self, replicas: u32) -> Result<i64> {
        let found = self.work.cluster.found(self.deployment).await?;
        let there = found.as_ref().and_then(|found| found.data["spec"]["replicas"].as_u64());
        let mut manifest = self.deployment.clone();
        manifest.value["spec"]["replicas"] = there.unwrap_or(0).max(replicas.into()).into();
        let back = found.as_ref().is_some_and(was_handed_over);
        self.work.cluster.check(&self.work.context.fence).await?;
        let applied = self.work.cluster.apply(&manifest, found.as_ref(), back).await?;
        Ok(applied.metadata.generation.unwrap_or(0))
    }

    /// Leaves an old Deployment that many instances at the most. Returns how many it is left with.
    async fn shrink(&self, old: &Deployment, replicas: u32) -> Result<u32> {
        let name = old.name_any();
        let now = self.work.cluster.get::<Deployment>("look for its pods", &name).await?;
        let Some(now) = now.as_ref().and_then(spec) else { return Ok(0) };
        let there = u32::try_from(now.replicas.unwrap_or(1)).unwrap_or(0);
        if there <= replicas {
            return Ok(there);
        }
        let manifest = Manifest { name, ..self.deployment.clone() };
        self.work.cluster.check(&self.work.context.fence).await?;
        keep_replicas(self.work.cluster, &manifest, &json!(replicas)).await?;
        Ok(replicas)
    }
}

/// Lets the Service lead to the old instances alone, unless it tells revisions apart already: then
/// an update that failed or was killed has brought it there.
async fn select_old(work: &Work<'_>, part: &Part<'_>, old: &[Deployment]) -> Result<()> {
    use k8s_openapi::api::core::v1::Service;
    let made = old.first().and_then(template).as_ref().and_then(made_for);
    let Some((_, revision)) = made else { return Ok(()) };
    let name = part.object_name();
    let found = work.cluster.get::<Service>("look for its address", &name).await?;
    let Some(service) = found else { return Ok(()) };
    let spec = service.spec.clone().unwrap_or_default();
    let mut selector = spec.selector.unwrap_or_default();
    if selector.contains_key(labels::REVISION) {
        return Ok(());
    }
    selector.insert(labels::REVISION.to_owned(), revision.to_string());
    // As it is, so that its ports change with the instances; but for what is the cluster's.
    let ports = spec.ports.unwrap_or_default().into_iter();
    let ports: Vec<_> = ports
        .map(|port| {
            json!({
                "name": port.name, "port": port.port, "protocol": port.protocol,
                "targetPort": port.target_port,
            })
        })
        .collect();
    let mut annotations = service.annotations().clone();
    annotations.retain(|key, _| key == labels::HASH);
    let headless = spec.cluster_ip.filter(|address| address == HEADLESS);
    let kind = spec.type_;
    let mut spec = json!({ "type": kind, "selector": selector, "ports": ports });
    if let Some(none) = headless {
        spec["clusterIP"] = none.into();
    }
    let manifest = Manifest {
        wide: false,
        resource: ApiResource::erase::<Service>(&()),
        value: json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": name, "labels": service.labels(), "annotations": annotations,
            },
            "spec": spec,
        }),
        name,
    };
    work.apply(&manifest).await.map(drop)
}
