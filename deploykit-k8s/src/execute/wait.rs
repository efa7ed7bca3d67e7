//! Waiting until a rollout is out, or it is clear that it will not be.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::Update;
use deploykit_core::{
    Error, ErrorKind, Event, Instance, InstanceChange, InstanceState, Reason, Result,
};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetStatus, Deployment, DeploymentSpec, DeploymentStatus, StatefulSet,
    StatefulSetSpec, StatefulSetStatus,
};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use super::Work;
use crate::cluster::{says, some};
use crate::error::error;
use crate::objects::{self, Part};
use crate::rollout::{self, Progress};
use crate::view::Live;
use crate::{diagnose, pods};

/// How often an instance may be started again before its rollout has failed.
const CRASHES: u32 = 3;
/// How long old instances may take to be gone beyond their grace period.
const ENDING: Duration = Duration::from_secs(60);

/// One rollout that is waited for.
pub(super) struct Rollout<'a> {
    work: &'a Work<'a>,
    part: &'a Part<'a>,
    kind: &'a str,
    object: &'a str,
    generation: i64,
    told: Told,
}

/// What is there at one moment.
struct Moment {
    /// How far the controller is; nothing before it has seen the change.
    progress: Option<Result<Progress, String>>,
    wanted: u32,
    /// What the controller says of instances that it cannot make.
    refused: Option<String>,
    new: Vec<(Arc<Pod>, Instance)>,
    old: Vec<(Arc<Pod>, Instance)>,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        work: &'a Work<'a>,
        part: &'a Part<'a>,
        kind: &'a str,
        object: &'a str,
    ) -> Self {
        Self { work, part, kind, object, generation: 0, told: Told::default() }
    }

    async fn look(&self) -> Result<Moment> {
        self.work.view.look(|live| self.moment(live)).await
    }

    fn moment(&self, live: &Live) -> Moment {
        let (progress, wanted, refused) = match self.kind {
            "StatefulSet" => stateful_set(live, self.object, self.generation),
            "DaemonSet" => daemon_set(live, self.object, self.generation),
            _ => deployment(live, self.object, self.generation),
        };
        let instances = live.pods.of(self.work.name).into_iter();
        let instances = instances.filter_map(|pod| {
            let instance = pods::instance(&pod)?;
            Some((pod, instance))
        });
        let is_new = |(_, instance): &(Arc<Pod>, Instance)| {
            instance.hash.matches(&self.part.template)
                && instance.revision == self.part.revision
                && instance.state != InstanceState::Stopping
        };
        let (new, old) = instances.partition(is_new);
        Moment { progress, wanted, refused, new, old }
    }

    /// Waits until every new instance of that generation of the object is ready, and no more old
    /// ones are there than may stay.
    pub(super) async fn wait(
        &mut self,
        update: &Update,
        generation: i64,
        staying: usize,
    ) -> Result<()> {
        self.generation = generation;
        let mut changes = self.work.view.changes(self.work.name);
        let mut best = None;
        let monitored = objects::monitor(self.part, update).unwrap_or(0).unsigned_abs();
        let monitored = Duration::from_secs(monitored.into());
        let patience = update.progress_deadline.max(Duration::from_secs(1)) + monitored;
        let mut deadline = Instant::now() + patience;
        let mut is_out = false;
        loop {
            changes.mark_unchanged();
            let moment = self.look().await?;
            self.told.tell(self.work, &moment);
            let now_ready = moment.new.iter().filter(|(_, i)| i.ready).count();
            // An instance that has been scheduled, pulled and started is progress, too.
            let running = moment.new.iter().filter(|(_, i)| i.state == InstanceState::Running);
            let now = (running.count(), now_ready);
            if best.is_none_or(|(running, ready)| now.0 > running || now.1 > ready) {
                deadline = Instant::now() + patience;
            }
            let (running, ready) = best.unwrap_or_default();
            best = Some((now.0.max(running), now.1.max(ready)));
            match &moment.progress {
                Some(Ok(progress)) if progress.done => {
                    if moment.old.len() <= staying && moment.new.len() == moment.wanted as usize {
                        return Ok(());
                    }
                    if !is_out {
                        is_out = true;
                        deadline = Instant::now() + self.part.template.stop_grace + ENDING;
                    }
                }
                Some(Err(why)) => return Err(self.failure(why.clone(), &moment).await),
                _ => is_out = false,
            }
            let hopeless = moment.new.iter().filter(|(_, i)| is_hopeless(i)).count();
            if hopeless > 0 {
                let message = format!("{hopeless} of its new instances cannot get ready");
                return Err(self.failure(message, &moment).await);
            }
            if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
                let moment = self.look().await?;
                let message = match is_out {
                    true => format!("{} old instances do not end", moment.old.len()),
                    false => format!(
                        "{now_ready} of {} instances ready, and no progress for {patience:?}",
                        moment.wanted
                    ),
                };
                return Err(self.failure(message, &moment).await);
            }
        }
    }

    /// Watches that new instances stay ready for that long.
    pub(super) async fn hold(&self, time: Duration) -> Result<()> {
        let until = Instant::now() + time;
        let mut changes = self.work.view.changes(self.work.name);
        loop {
            changes.mark_unchanged();
            let moment = self.look().await?;
            if moment.new.iter().any(|(_, instance)| !instance.ready) {
                let message = "a canary instance did not stay ready".to_owned();
                return Err(self.failure(message, &moment).await);
            }
            if tokio::time::timeout_at(until, changes.changed()).await.is_err() {
                return Ok(());
            }
        }
    }

    async fn failure(&self, message: String, moment: &Moment) -> Error {
        let waiting = moment.new.iter().filter(|(_, instance)| !instance.ready);
        let mut found = Vec::new();
        for (pod, instance) in waiting {
            found.push(diagnose::pod(self.work, pod, instance).await);
        }
        if found.is_empty() {
            found.extend(
                diagnose::nothing_made(self.work, self.kind, self.object, &moment.refused).await,
            );
        }
        if found.is_empty() {
            let message = "it was ready, but not for long enough".to_owned();
            let reason = Reason::Slow { message };
            found.extend(moment.new.iter().map(|(_, i)| deploykit_core::Diagnosis {
                service: self.work.name.clone(),
                instance: Some(i.id.clone()),
                reason: reason.clone(),
            }));
        }
        error(ErrorKind::Failed, "roll out", message)
            .with("service", self.work.name)
            .with_diagnoses(found)
    }
}

/// Whether it is clear before any deadline that an instance will not get ready.
fn is_hopeless(instance: &Instance) -> bool {
    let broken = matches!(
        instance.trouble,
        Some(
            Reason::ImageNotFound { .. }
                | Reason::PullDenied { .. }
                | Reason::SecretMissing { .. }
                | Reason::OutOfMemory { .. }
                | Reason::StartFailed { .. }
        )
    );
    !instance.ready && (broken || instance.restarts >= CRASHES)
}

/// What has been reported so far.
#[derive(Default)]
struct Told {
    announced: bool,
    ready: Option<usize>,
    stages: BTreeMap<String, Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Started,
    Ready,
    Draining,
}

impl Told {
    fn tell(&mut self, work: &Work<'_>, moment: &Moment) {
        let mut now = BTreeMap::new();
        for (_, instance) in &moment.new {
            let stage = if instance.ready { Stage::Ready } else { Stage::Started };
            now.insert(instance.id.clone(), stage);
        }
        for (_, instance) in &moment.old {
            if instance.state == InstanceState::Stopping {
                now.insert(instance.id.clone(), Stage::Draining);
            }
        }
        for (id, stage) in &now {
            if self.stages.get(id).is_none_or(|before| before < stage) {
                let change = match stage {
                    Stage::Started => InstanceChange::Started,
                    Stage::Ready => InstanceChange::Ready,
                    Stage::Draining => InstanceChange::Draining,
                };
                work.report(id, change);
            }
        }
        for (id, stage) in &self.stages {
            if *stage == Stage::Draining && !now.contains_key(id) {
                work.report(id, InstanceChange::Removed);
            }
        }
        self.stages = now;
        let running = moment.new.iter().filter(|(_, i)| i.state == InstanceState::Running).count();
        let service = work.name.clone();
        if !self.announced && moment.progress.is_some() && running >= moment.wanted as usize {
            self.announced = true;
            work.context.events.send(Event::Started { service: service.clone() });
        }
        let ready = moment.new.iter().filter(|(_, i)| i.ready).count();
        if self.ready != Some(ready) {
            self.ready = Some(ready);
            work.context.events.send(Event::Progress {
                service,
                ready: ready as u32,
                wanted: moment.wanted,
            });
        }
    }
}

type Told3 = (Option<Result<Progress, String>>, u32, Option<String>);

fn count(number: Option<i32>) -> u32 {
    u32::try_from(number.unwrap_or(0)).unwrap_or(0)
}

fn deployment(live: &Live, name: &str, generation: i64) -> Told3 {
    let Some(object) = live.deployments.get(name) else {
        return (None, 0, None);
    };
    let Deployment { metadata, spec, status } = &**object;
    let wanted = some::<DeploymentSpec>(spec.clone()).and_then(|s| s.replicas).unwrap_or(1);
    let status = some::<DeploymentStatus>(status.clone()).unwrap_or_default();
    let conditions = status.conditions.iter().flatten();
    let refused = conditions
        .clone()
        .find(|c| says(c.type_.clone(), "ReplicaFailure") && says(c.status.clone(), "True"));
    let deadline_exceeded = conditions.clone().any(|c| {
        says(c.type_.clone(), "Progressing") && says(c.reason.clone(), "ProgressDeadlineExceeded")
    });
    let told = rollout::Deployment {
        name: name.to_owned(),
        generation: metadata.generation.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        wanted,
        replicas: status.replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        available: status.available_replicas.unwrap_or(0),
        deadline_exceeded,
    };
    let seen = told.generation >= generation;
    (seen.then(|| told.progress()), count(Some(wanted)), refused.and_then(|c| c.message.clone()))
}

fn stateful_set(live: &Live, name: &str, generation: i64) -> Told3 {
    let Some(object) = live.stateful_sets.get(name) else {
        return (None, 0, None);
    };
    let StatefulSet { metadata, spec, status } = &**object;
    let wanted = some::<StatefulSetSpec>(spec.clone()).and_then(|s| s.replicas).unwrap_or(1);
    let status = some::<StatefulSetStatus>(status.clone()).unwrap_or_default();
    let told = rollout::StatefulSet {
        generation: metadata.generation.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        wanted: Some(wanted),
        ready: status.ready_replicas.unwrap_or(0),
        current: status.current_replicas.unwrap_or(0),
        updated: status.updated_replicas.unwrap_or(0),
        current_revision: status.current_revision.unwrap_or_default(),
        update_revision: status.update_revision.unwrap_or_default(),
        rolling: true,
        partition: None,
    };
    // Beyond what kubectl waits for: the time that instances are monitored.
    let available = status.available_replicas.unwrap_or(0) >= wanted;
    let progress = (told.generation >= generation).then(|| {
        told.progress().map(|progress| Progress { done: progress.done && available, ..progress })
    });
    (progress, count(Some(wanted)), None)
}

fn daemon_set(live: &Live, name: &str, generation: i64) -> Told3 {
    let Some(object) = live.daemon_sets.get(name) else {
        return (None, 0, None);
    };
    let DaemonSet { metadata, status, .. } = &**object;
    let status = some::<DaemonSetStatus>(status.clone()).unwrap_or_default();
    let told = rollout::DaemonSet {
        name: name.to_owned(),
        generation: metadata.generation.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        desired: status.desired_number_scheduled,
        updated: status.updated_number_scheduled.unwrap_or(0),
        available: status.number_available.unwrap_or(0),
        rolling: true,
    };
    let wanted = count(Some(told.desired));
    ((told.generation >= generation).then(|| told.progress()), wanted, None)
}
