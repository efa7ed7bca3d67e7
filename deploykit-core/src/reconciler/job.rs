//! Runs of jobs.

use std::time::Duration;

use tokio::time::Instant;

use super::Work;
use crate::diagnosis::{Diagnosis, Reason};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, InstanceChange};
use crate::observation::Instance;
use crate::runtime::{InstanceSpec, Runtime};

/// The longest that a job without a time limit of its own is waited for.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Runs a job to its end, going on with an attempt that a killed deployer left running.
pub(super) async fn run<R: Runtime>(work: &Work<'_, R>, run: &str) -> Result<()> {
    let app = &work.context.target.app;
    let (retries, timeout) = app.jobs.get(work.name).map_or((0, None), |j| (j.retries, j.timeout));
    let deadline = Instant::now() + timeout.unwrap_or(LONGEST);
    let (template, hash) = work.template()?;
    let prefix = format!("{}-{run}-", work.name);
    let of_this_run = |i: &Instance| i.id.starts_with(&prefix);

    let mut seen = work.view.refresh().await?;
    work.make_endpoints(&work.missing_endpoints(&seen, &template)).await?;
    // Attempts that failed in an earlier apply do not count against this one.
    let spent = |i: &&Instance| of_this_run(i) && i.exit().is_some_and(|e| !e.is_success());
    let failed: Vec<&Instance> = seen.of(work.name).filter(spent).collect();
    let mut attempt = match seen.of(work.name).find(|i| of_this_run(i) && !spent(i)) {
        Some(there) => there.id.clone(),
        None => format!("{prefix}0"),
    };
    work.retire(&failed, false).await?;

    for tries in 0..=retries {
        let spec = InstanceSpec {
            id: attempt.clone(),
            service: work.name.clone(),
            revision: work.context.revision,
            hash: hash.clone(),
            slot: 0,
            job: true,
            depends_on: work.depends_on(),
            template: template.clone(),
        };
        work.runtime.start(&work.context.fence, &spec).await?;
        work.report(&attempt, InstanceChange::Started);
        work.context.events.send(Event::Started { service: work.name.clone() });
        seen = work.view.refresh().await?;
        let ended = loop {
            match seen.instance(&attempt) {
                Some(instance) => {
                    if let Some(exit) = instance.exit() {
                        break exit;
                    }
                }
                None => return Err(vanished(work, &attempt)),
            }
            let next = tokio::time::timeout_at(deadline, work.view.changed(&seen, work.name)).await;
            match next {
                Ok(next) => seen = next?,
                Err(_) => return Err(too_long(work, &attempt, timeout).await),
            }
        };
        if ended.is_success() {
            let older: Vec<&Instance> = seen.of(work.name).filter(|i| i.id != attempt).collect();
            return work.retire(&older, false).await;
        }
        if tries == retries {
            let log = work.tail(&attempt).await;
            let reason = Reason::JobFailed { exit: ended.to_string(), log };
            return Err(failure(work, &attempt, reason, "the job failed"));
        }
        attempt = format!("{prefix}{}", tries + 1);
    }
    Ok(())
}

fn failure<R: Runtime>(work: &Work<'_, R>, id: &str, reason: Reason, message: &str) -> Error {
    let diagnosis = Diagnosis { service: work.name.clone(), instance: Some(id.to_owned()), reason };
    Error::new(ErrorKind::Failed, "run the job", message)
        .on(work.runtime.name())
        .with("job", work.name)
        .with_diagnoses(vec![diagnosis])
}

fn vanished<R: Runtime>(work: &Work<'_, R>, id: &str) -> Error {
    let message = "its instance was removed by somebody else while it ran".to_owned();
    failure(work, id, Reason::StartFailed { message }, "the job did not end")
}

async fn too_long<R: Runtime>(work: &Work<'_, R>, id: &str, limit: Option<Duration>) -> Error {
    let limit = limit.unwrap_or(LONGEST);
    let message = format!("it ran longer than {}", humantime::format_duration(limit));
    // The job has failed already; a stop that fails as well is found by the next pass.
    if let Err(error) = work.runtime.stop(&work.context.fence, id).await {
        tracing::warn!(%error, instance = id, "a job that ran too long could not be stopped");
    }
    failure(work, id, Reason::Slow { message }, "the job took too long")
}
