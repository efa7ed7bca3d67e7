//! Jobs that run by themselves.

use deploykit_core::Result;
use k8s_openapi::api::batch::v1::CronJob;

use super::Work;
use crate::objects;

/// Brings the schedule of a job to what the revision says.
pub(crate) async fn run(work: &Work<'_>) -> Result<()> {
    let Some(schedule) = work.context.target.schedule(work.name) else {
        work.cluster.check(&work.context.fence).await?;
        return work.cluster.delete_all::<CronJob>(&work.selector()).await.map(drop);
    };
    let part = work.part().await?;
    for config in objects::configs(&part) {
        work.apply(&config).await?;
    }
    work.apply(&objects::schedule(&part, &schedule)?).await.map(drop)
}
