//! Jobs that run by themselves.

use deploykit_core::Result;

use super::Work;
use crate::objects;

/// Brings the schedule of a job to what the revision says.
pub(crate) async fn run(work: &Work<'_>) -> Result<()> {
    let Some(schedule) = work.context.target.schedule(work.name) else {
        let mut had = work.view.beside().await?.of(work.name).to_vec();
        had.retain(|object| object.resource.kind == "CronJob");
        return work.delete(&had).await;
    };
    let part = work.part().await?;
    work.lay(&part).await?;
    work.apply(&objects::schedule(&part, &schedule)?).await?;
    work.drop_account(&part).await
}
