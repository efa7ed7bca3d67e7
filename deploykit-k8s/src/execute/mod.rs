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
use futures_util::future::try_join;
use k8s_openapi::api::apps::v1::{DaemonSetSpec, StatefulSetSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use kube::ResourceExt;
use kube::api::DynamicObject;

use crate::beside::Object;
use crate::cluster::{Cluster, some, was_overtaken};
use crate::config::K8sConfig;
use crate::error::error;
use crate::images::Images;
use crate::labels;
use crate::lock::RACES;
use crate::objects::{self, Manifest, Part};
use crate::view::{Live, View};

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
        let sets = |live: &Live| (live.stateful_sets.of(self.name), live.daemon_sets.of(self.name));
        let ((stateful_sets, daemon_sets), beside) =
            try_join(self.view.look(sets), self.view.beside()).await?;
        let stateful_sets = stateful_sets
            .iter()
            .filter_map(|set| Some(some::<StatefulSetSpec>(set.spec.clone())?.template));
        let daemon_sets = daemon_sets
            .iter()
            .filter_map(|set| Some(some::<DaemonSetSpec>(set.spec.clone())?.template));
        for template in beside.earlier(self.name) {
            make_alike(&mut part, template);
        }
        for template in stateful_sets.chain(daemon_sets) {
            make_alike(&mut part, &template);
        }
        give_signal(&mut part, self.images).await?;
        Ok(part)
    }

    /// Applies what the pods need before they are there.
    async fn lay(&self, part: &Part<'_>) -> Result<()> {
        for manifest in objects::beneath(part) {
            self.apply(&manifest).await?;
        }
        Ok(())
    }

    /// Removes the account of a job that runs under its own no more.
    async fn drop_account(&self, part: &Part<'_>) -> Result<()> {
        if part.template.service_account.is_some() {
            return Ok(());
        }
        let mut had = self.view.beside().await?.of(self.name).to_vec();
        had.retain(|object| object.resource.kind == "ServiceAccount");
        self.delete(&had).await
    }

    /// The object that a manifest stands for, where it is ours. What is new is not looked for by
    /// itself: it was in no list a moment ago, and what somebody else makes meanwhile is a conflict
    /// of fields, unless these are to be taken.
    async fn found(&self, manifest: &Manifest) -> Result<Option<DynamicObject>> {
        let kind = &manifest.resource.kind;
        let mut ours = self.view.look(|live| live.keepers(self.name)).await?;
        ours.extend_from_slice(self.view.beside().await?.of(self.name));
        let known = ours.iter().any(|o| o.resource.kind == *kind && o.name == manifest.name);
        // Each revision of every app is a ConfigMap, too: there are many.
        let listed = !known && !self.cluster.force && kind != "ConfigMap";
        if listed && self.view.is_absent(manifest).await {
            return Ok(None);
        }
        self.cluster.found(manifest).await
    }

    /// Applies an object of ours, where the fence is not old.
    async fn apply(&self, manifest: &Manifest) -> Result<DynamicObject> {
        not_overtaken(|| async {
            let mut found = self.found(manifest).await?;
            self.cluster.check(&self.context.fence).await?;
            if let Some(old) = found.take_if(|old| objects::is_replaced(manifest, old)) {
                self.cluster.delete(&manifest.resource, &manifest.name, old.uid()).await?;
            }
            self.cluster.apply(manifest, found.as_ref(), false).await
        })
        .await
    }

    /// Deletes objects, where the fence is not old.
    async fn delete(&self, objects: &[Object]) -> Result<()> {
        if !objects.is_empty() {
            self.cluster.check(&self.context.fence).await?;
        }
        for Object { resource, name, uid } in objects {
            self.cluster.delete(resource, name, uid.clone()).await?;
        }
        Ok(())
    }
}

/// Makes a change again where somebody else's of the object has come before it: controllers write
/// how far they are.
async fn not_overtaken<T, F>(change: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut races = 0;
    loop {
        match change().await {
            Err(error) if was_overtaken(&error) && races < RACES => races += 1,
            done => return done,
        }
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
