//! Ending instances, one or all.

use futures_util::future::try_join_all;

use super::Work;
use crate::error::Result;
use crate::event::{Event, InstanceChange};
use crate::observation::Instance;
use crate::runtime::Runtime;

impl<R: Runtime> Work<'_, R> {
    /// Reports what became of an instance.
    pub(super) fn report(&self, instance: &str, change: InstanceChange) {
        self.context.events.send(Event::Instance {
            service: self.name.clone(),
            instance: instance.to_owned(),
            change,
        });
    }

    /// Ends instances that are not routed any more: lets their requests end, then stops and
    /// removes them, all at once.
    pub(super) async fn retire(&self, instances: &[&Instance], drain: bool) -> Result<()> {
        try_join_all(instances.iter().map(|instance| async move {
            self.stop(instance, drain).await?;
            self.remove(instance).await
        }))
        .await
        .map(drop)
    }

    /// Lets the requests of an instance end, and stops it.
    pub(super) async fn stop(&self, instance: &Instance, drain: bool) -> Result<()> {
        let (fence, id) = (&self.context.fence, instance.id.as_str());
        self.report(id, InstanceChange::Draining);
        if drain && instance.exit().is_none() {
            // The grace period is the time that an instance has to come to its end; what is
            // still in flight after that is cut off by the stop, as the app asked for.
            let grace = self.context.target.app.workload(self.name).map(|w| w.stop_grace);
            let grace = grace.unwrap_or(std::time::Duration::from_secs(10));
            self.runtime.drain(fence, self.name, id, grace).await?;
        }
        self.runtime.stop(fence, id).await
    }

    /// Removes an instance that has been stopped.
    pub(super) async fn remove(&self, instance: &Instance) -> Result<()> {
        self.runtime.remove(&self.context.fence, &instance.id).await?;
        self.report(&instance.id, InstanceChange::Removed);
        Ok(())
    }
}

/// Removes everything of a service or job.
pub(super) async fn service<R: Runtime>(work: &Work<'_, R>) -> Result<()> {
    let seen = work.view.refresh().await?;
    let fence = &work.context.fence;
    let has_endpoint = seen.endpoints.contains_key(work.name);
    if has_endpoint {
        work.runtime.route(fence, work.name, &[]).await?;
    }
    let all: Vec<&Instance> = seen.of(work.name).collect();
    work.retire(&all, has_endpoint).await?;
    if has_endpoint {
        work.runtime.remove_endpoint(fence, work.name).await?;
    }
    Ok(())
}
