//! Runs of jobs.

use std::sync::Arc;
use std::time::Duration;

use deploykit_core::{Diagnosis, Error, ErrorKind, Event, Instance, Reason, Result};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::ApiResource;
use tokio::time::Instant;

use super::Work;
use crate::beside::Object;
use crate::error::error;
use crate::{diagnose, labels, objects, pods};

/// The longest that a job without a time limit of its own is waited for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// How long an object may take to be gone.
const ENDING: Duration = Duration::from_secs(120);

/// Whether a Job has ended, and how: with success, or for a reason and with a message.
fn ended(job: &Job) -> Option<Result<(), (String, String)>> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().filter(|c| c.status == "True").find_map(|c| match c.type_.as_str() {
        "Complete" => Some(Ok(())),
        "Failed" => {
            Some(Err((c.reason.clone().unwrap_or_default(), c.message.clone().unwrap_or_default())))
        }
        _ => None,
    })
}

/// Runs a job to its end, going on with a run that a killed deployer left running.
pub(crate) async fn run(work: &Work<'_>, run: &str) -> Result<()> {
    let part = work.part().await?;
    let manifest = objects::job(&part, run)?;
    work.lay(&part).await?;
    let resource = ApiResource::erase::<Job>(&());
    let there = work.cluster.found(&manifest).await?;
    let known = work.cluster.get::<Job>("look for the job", &manifest.name).await?;
    let failed = known.as_ref().is_some_and(|job| matches!(ended(job), Some(Err(_))));
    if failed {
        // A run that failed in an earlier apply does not count against this one.
        work.cluster.check(&work.context.fence).await?;
        let uid = known.as_ref().and_then(ResourceExt::uid);
        work.cluster.delete(&resource, &manifest.name, uid.clone()).await?;
        gone(work, &manifest.name, uid).await?;
    }
    if there.is_none() || failed {
        work.apply(&manifest).await?;
    }
    work.context.events.send(Event::Started { service: work.name.clone() });
    wait(work, &manifest.name, run).await?;
    // Earlier runs have had their day.
    let is_older = |job: &&Arc<Job>| job.labels().get(labels::RUN).is_none_or(|of| of != run);
    let jobs = work.view.look(|live| live.jobs.of(work.name)).await?;
    let older: Vec<Object> = jobs.iter().filter(is_older).map(|job| Object::of(&**job)).collect();
    work.delete(&older).await?;
    work.drop_account(&part).await
}

/// Waits until a Job and its pods are gone.
async fn gone(work: &Work<'_>, name: &str, uid: Option<String>) -> Result<()> {
    let deadline = Instant::now() + ENDING;
    let mut changes = work.view.changes(work.name);
    loop {
        changes.mark_unchanged();
        let left = work
            .view
            .look(|live| {
                let job = live.jobs.get(name);
                job.is_some_and(|job| uid.is_none() || job.uid() == uid)
            })
            .await?;
        if !left {
            return Ok(());
        }
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            let message = format!("the Job {name} of an earlier try is not gone after {ENDING:?}");
            return Err(error(ErrorKind::Timeout, "run the job", message).with("job", work.name));
        }
    }
}

async fn wait(work: &Work<'_>, name: &str, run: &str) -> Result<()> {
    let limit = work.context.target.app.jobs.get(work.name).and_then(|job| job.timeout);
    // The controller ends it in time; this is for one that does not.
    let deadline = Instant::now() + limit.map_or(LONGEST, |limit| limit + ENDING);
    let mut changes = work.view.changes(work.name);
    loop {
        changes.mark_unchanged();
        let (job, found) = work
            .view
            .look(|live| {
                let job = live.jobs.get(name).cloned();
                (job, live.pods.of(work.name))
            })
            .await?;
        let of_run = |pod: &&Pod| pod.labels().get(labels::RUN).is_some_and(|label| label == run);
        let mut found: Vec<(&Pod, Instance)> = found
            .iter()
            .map(|pod| &**pod)
            .filter(of_run)
            .filter_map(|pod| Some((pod, pods::instance(pod)?)))
            .collect();
        found.sort_by_key(|(pod, _)| pod.metadata.creation_timestamp.clone().map(|t| t.0));
        match job.as_deref().and_then(ended) {
            Some(Ok(())) => return Ok(()),
            Some(Err((reason, _))) if reason == "DeadlineExceeded" => {
                // It has failed already; what runs of it is ended by the controller.
                if found.iter().all(|(_, instance)| instance.exit().is_some()) {
                    return Err(too_long(work, limit));
                }
            }
            Some(Err((_, message))) => return Err(failed(work, &found, message).await),
            None => {
                let stuck = found.iter().find(|(_, i)| is_stuck(i));
                if let Some((pod, instance)) = stuck {
                    let diagnosis = diagnose::pod(work, pod, instance).await;
                    return Err(failure(work, "the job cannot be run", diagnosis));
                }
            }
        }
        if tokio::time::timeout_at(deadline, changes.changed()).await.is_err() {
            return Err(too_long(work, limit));
        }
    }
}

/// Whether an instance will never begin.
fn is_stuck(instance: &Instance) -> bool {
    matches!(
        instance.trouble,
        Some(
            Reason::ImageNotFound { .. }
                | Reason::PullDenied { .. }
                | Reason::SecretMissing { .. }
                | Reason::StartFailed { .. }
        )
    ) && instance.exit().is_none()
}

fn failure(work: &Work<'_>, message: &str, diagnosis: Diagnosis) -> Error {
    error(ErrorKind::Failed, "run the job", message)
        .with("job", work.name)
        .with_diagnoses(vec![diagnosis])
}

fn too_long(work: &Work<'_>, limit: Option<Duration>) -> Error {
    let message = format!("it ran longer than {:?}", limit.unwrap_or(LONGEST));
    let reason = Reason::Slow { message };
    let diagnosis = Diagnosis { service: work.name.clone(), instance: None, reason };
    failure(work, "the job took too long", diagnosis)
}

async fn failed(work: &Work<'_>, found: &[(&Pod, Instance)], message: String) -> Error {
    let ended = found.iter().rev().find_map(|(_, i)| Some((i, i.exit()?)));
    let diagnosis = match ended {
        Some((instance, exit)) => Diagnosis {
            service: work.name.clone(),
            instance: Some(instance.id.clone()),
            reason: match &instance.trouble {
                Some(trouble @ Reason::OutOfMemory { .. }) => trouble.clone(),
                _ => Reason::JobFailed {
                    exit: exit.to_string(),
                    log: diagnose::tail(work.cluster, &instance.id, false).await,
                },
            },
        },
        None => Diagnosis {
            service: work.name.clone(),
            instance: None,
            reason: Reason::StartFailed { message },
        },
    };
    failure(work, "the job failed", diagnosis)
}
