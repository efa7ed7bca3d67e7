//! Steps 11 and 12: nothing changes, and nothing is left.

use deploykit::model::{ServiceName, VolumeName};
use deploykit::{Applied, Change};

use super::report::{Failure, Outcome, expect};
use super::{LOCK_WAIT, Walkthrough};

impl Walkthrough {
    /// Step 11: the same app again is an empty plan.
    pub async fn same_again(&mut self) -> Outcome {
        let before = self.observe().await?;
        let plan = self.plan(&self.release).await?;
        expect(plan.is_empty(), "an empty plan", &plan)?;
        let applied = self.apply(plan).await?;
        let after = self.observe().await?;
        let ids = |observation: &deploykit::Observation| -> Vec<String> {
            observation.instances.iter().map(|instance| instance.id.clone()).collect()
        };
        expect(
            (applied.steps, ids(&after)) == (0, ids(&before)),
            format_args!("no step and {:?}", ids(&before)),
            format_args!("{} steps and {:?}", applied.steps, ids(&after)),
        )?;
        Ok(format!("0 steps, revision {} stays", applied.revision.unwrap_or_default()))
    }

    /// Step 12: removed, the blog leaves its volume; asked for that too, it leaves nothing.
    pub async fn remove(self) -> Outcome {
        let traces = self.host.traces(&self.observe().await?)?;
        let volume = VolumeName::new("data")?;
        let Self { url, app, deployer, host, registry, .. } = self;
        let remove = async |deployer: deploykit::Deployer, volumes| -> Result<Applied, Failure> {
            let plan = deployer.plan(Change::Remove { app: app.clone(), volumes }).await?;
            let applied = deployer.apply(plan, &mut deploykit::progress::terminal()).await?;
            let left = deployer.status(&app).await?;
            expect(
                left.observation.is_empty() && left.revision.is_none(),
                "nothing of the app",
                format_args!("{left:?}"),
            )?;
            Ok(applied)
        };
        let applied = remove(deployer, false).await?;
        expect(
            applied.kept_volumes == [volume.clone()],
            "the volume data to be kept",
            format_args!("{:?}", applied.kept_volumes),
        )?;
        host.wait_until_gone(&traces, Some(&volume)).await?;
        if let Some(registry) = registry {
            let gateway = registry.instances(&ServiceName::new("gateway")?).await?;
            expect(gateway.is_empty(), "nobody in the registry", format_args!("{gateway:?}"))?;
        }
        // The supervisor of a local backend has ended with its last app.
        let again = deploykit::open(&url).await?.with_lock_wait(LOCK_WAIT);
        remove(again, true).await?;
        host.wait_until_gone(&traces, None).await?;
        Ok("no process, socket or file is left but the volume, and then not even that".into())
    }
}
