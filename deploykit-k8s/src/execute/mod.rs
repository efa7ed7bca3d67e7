//! Reaching the goal of a step.

mod certificate;
pub(crate) mod collect;
pub(crate) mod job;
pub(crate) mod raw;
mod reach;
pub(crate) mod remove;
pub(crate) mod schedule;
pub(crate) mod service;
mod staged;
pub(crate) mod volume;
mod wait;

use std::sync::Arc;

use deploykit_core::model::{ServiceName, Signal};
use deploykit_core::{ErrorKind, Event, InstanceChange, Result, StepContext};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, ReplicaSet, ReplicaSetSpec, StatefulSet, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;

use crate::cluster::{Cluster, some};
use crate::config::K8sConfig;
use crate::error::error;
use crate::images::Images;
use crate::labels;
use crate::objects::{Manifest, Part};
use crate::view::View;

/// What the steps of one service or job work with.
pub(crate) struct Work<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) config: &'a K8sConfig,
    pub(crate) images: &'a Images,
    pub(crate) view: Arc<View>,
    pub(crate) context: &'a StepContext,
    pub(crate) name: &'a ServiceName,
}

impl Work<'_> {
    /// The selector of everything of the service or job.
    pub(crate) fn selector(&self) -> String {
        format!("{}={},{}={}", labels::APP, self.context.fence.app, labels::SERVICE, self.name)
    }

    /// Reports what became of an instance.
    pub(crate) fn report(&self, instance: &str, change: InstanceChange) {
        self.context.events.send(Event::Instance {
            service: self.name.clone(),
            instance: instance.to_owned(),
            change,
        });
    }

    /// What the objects are made from. Where pods of the same template are or were there, theirs
    /// are made alike to the letter: with the hash and the revision that they carry.
    async fn part(&self) -> Result<Part<'_>> {
        let context = self.context;
        let mut part = Part::new(self.config, &context.target, self.name, context.revision)?;
        let selector = self.selector();
        let operation = "look for earlier revisions";
        let (replica_sets, stateful_sets, daemon_sets) = futures_util::try_join!(
            self.cluster.list::<ReplicaSet>(operation, &selector),
            self.cluster.list::<StatefulSet>(operation, &selector),
            self.cluster.list::<DaemonSet>(operation, &selector),
        )?;
        let replica_sets =
            replica_sets.into_iter().filter_map(|set| some::<ReplicaSetSpec>(set.spec)?.template);
        let stateful_sets = stateful_sets
            .into_iter()
            .filter_map(|set| Some(some::<StatefulSetSpec>(set.spec)?.template));
        let daemon_sets = daemon_sets
            .into_iter()
            .filter_map(|set| Some(some::<DaemonSetSpec>(set.spec)?.template));
        for template in replica_sets.chain(stateful_sets).chain(daemon_sets) {
            make_alike(&mut part, &template);
        }
        give_signal(&mut part, self.images).await?;
        Ok(part)
    }

    /// Applies an object of ours, where the fence is not old.
    async fn apply(&self, manifest: &Manifest) -> Result<kube::api::DynamicObject> {
        let found = self.cluster.found(manifest).await?;
        self.cluster.check(&self.context.fence).await?;
        self.cluster.apply(manifest, found.as_ref(), false).await
    }
}

/// Makes a part to the letter like pods that are made from the same template. Returns whether these
/// are.
pub(crate) fn make_alike(part: &mut Part<'_>, pods: &PodTemplateSpec) -> bool {
    let Some((hash, revision)) = made_for(pods) else { return false };
    let alike = hash.matches(&part.template);
    if alike {
        (part.hash, part.revision) = (hash, revision);
    }
    alike
}

/// Names the image that has the stop signal of the template.
pub(crate) async fn give_signal(part: &mut Part<'_>, images: &Images) -> Result<()> {
    let signal = part.template.stop_signal;
    if signal == Signal::Term {
        return Ok(());
    }
    if !part.pushes_image() {
        let message = "Kubernetes ends containers by the signal that their image names; set \
                       STOPSIGNAL in the image and leave `stop_signal` out";
        return Err(
            error(ErrorKind::Unsupported, "make the objects", message).with("service", part.name)
        );
    }
    part.image = images.with_stop_signal(&part.image, signal).await?;
    Ok(())
}

/// The hash and the revision that the pods of a template carry.
fn made_for(template: &PodTemplateSpec) -> Option<(deploykit_core::SpecHash, u64)> {
    let metadata = template.metadata.as_ref()?;
    let hash = metadata.annotations.as_ref()?.get(labels::HASH)?;
    let revision = metadata.labels.as_ref()?.get(labels::REVISION)?.parse().ok()?;
    Some((deploykit_core::SpecHash::from_text(hash.clone()), revision))
}
