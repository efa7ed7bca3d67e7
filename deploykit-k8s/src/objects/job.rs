//! Runs of jobs, and their schedules.

use std::collections::BTreeMap;

use deploykit_core::{Result, ScheduleSpec, SpecHash};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::container::whole_seconds;
use super::{Manifest, Part, pod};
use crate::labels;

/// What stands in the place of a run's name in the runs that a schedule makes.
const SCHEDULED: &str = "scheduled";

/// One run of a job. Its controller tries it again, each time with a pod of its own.
pub(crate) fn job(part: &Part<'_>, run: &str) -> Result<Manifest> {
    let mut metadata = part.metadata(job_name(part, run));
    metadata.labels.get_or_insert_default().insert(labels::RUN.to_owned(), run.to_owned());
    let spec = spec(part, run)?;
    Ok(Manifest::of(&Job { metadata, spec: Into::into(spec), status: Default::default() }))
}

/// The CronJob of a job that runs by itself.
pub(crate) fn schedule(part: &Part<'_>, schedule: &ScheduleSpec) -> Result<Manifest> {
    let mut metadata = part.metadata(labels::schedule_object(&part.target.app.name, part.name));
    let hash = SpecHash::of_schedule(schedule).to_string();
    metadata.annotations = Some(BTreeMap::from([(labels::HASH.to_owned(), hash)]));
    let mut run_labels = metadata.labels.clone().unwrap_or_default();
    run_labels.insert(labels::RUN.to_owned(), SCHEDULED.to_owned());
    Ok(Manifest::of(&CronJob {
        metadata,
        spec: Into::into(CronJobSpec {
            job_template: JobTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(run_labels), ..ObjectMeta::default() }),
                spec: Some(spec(part, SCHEDULED)?),
            },
            schedule: schedule.schedule.to_string(),
            time_zone: Some("Etc/UTC".into()),
            ..CronJobSpec::default()
        }),
        status: Default::default(),
    }))
}

/// Whether the labels are of a run that a schedule made.
pub(crate) fn is_scheduled(labels: &BTreeMap<String, String>) -> bool {
    labels.get(labels::RUN).is_some_and(|run| run == SCHEDULED)
}

fn spec(part: &Part<'_>, run: &str) -> Result<JobSpec> {
    let model = part.target.app.jobs.get(part.name);
    let (retries, timeout) = model.map_or((0, None), |job| (job.retries, job.timeout));
    let mut template = pod::template(part, "Never")?;
    let pod_labels = &mut template.metadata.get_or_insert_default().labels;
    pod_labels.get_or_insert_default().insert(labels::RUN.to_owned(), run.to_owned());
    Ok(JobSpec {
        active_deadline_seconds: timeout.map(|time| whole_seconds(time).max(1).into()),
        backoff_limit: Some(i32::try_from(retries).unwrap_or(i32::MAX)),
        template,
        ..JobSpec::default()
    })
}

/// The name of the Job of a run.
pub(crate) fn job_name(part: &Part<'_>, run: &str) -> String {
    labels::object_name(&[part.target.app.name.as_str(), part.name.as_str(), run])
}
