//! Runs of jobs.

use deploykit_core::Result;
use k8s_openapi::api::batch::v1::{Job, JobSpec};

use super::container::whole_seconds;
use super::{Manifest, Part, pod};
use crate::labels;

/// One run of a job. Its controller tries it again, each time with a pod of its own.
pub(crate) fn job(part: &Part<'_>, run: &str) -> Result<Manifest> {
    let model = part.target.app.jobs.get(part.name);
    let (retries, timeout) = model.map_or((0, None), |job| (job.retries, job.timeout));
    let mut template = pod::template(part, "Never")?;
    let mut metadata = part.metadata(job_name(part, run));
    for labels in [&mut metadata.labels, &mut template.metadata.get_or_insert_default().labels] {
        let labels = labels.get_or_insert_default();
        labels.insert(labels::RUN.to_owned(), run.to_owned());
    }
    Ok(Manifest::of(&Job {
        metadata,
        spec: Into::into(JobSpec {
            active_deadline_seconds: timeout.map(|time| whole_seconds(time).max(1).into()),
            backoff_limit: Some(i32::try_from(retries).unwrap_or(i32::MAX)),
            template,
            ..JobSpec::default()
        }),
        status: Default::default(),
    }))
}

/// The name of the Job of a run.
pub(crate) fn job_name(part: &Part<'_>, run: &str) -> String {
    labels::object_name(&[part.target.app.name.as_str(), part.name.as_str(), run])
}
