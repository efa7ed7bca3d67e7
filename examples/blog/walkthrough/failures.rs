//! Steps 6, 9 and 10: an instance is killed, two deployers meet, a deployer is killed.

use std::time::{Duration, Instant};

use deploykit::{Change, ErrorKind, Event, InstanceChange, Outcome as Ended, Silent};

use super::Walkthrough;
use super::first::ada;
use super::load::Mix;
use super::report::{Failure, Outcome, expect, until};
use super::rival::Rival;
use crate::app::{Release, wanted};

impl Walkthrough {
    /// Step 6: an instance of posts dies while people read.
    pub async fn kill_an_instance(&mut self) -> Outcome {
        let instances = self.instances("posts").await?;
        let victim = instances.first().ok_or_else(|| Failure::new("an instance", "none"))?;
        let load = self.load(Mix::Reads);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let killed = Instant::now();
        self.host.kill(victim).await?;
        let replaced = until("4 ready instances without the killed one", async || {
            let now = self.instances("posts").await?;
            let ready: Vec<&str> =
                now.iter().filter(|i| i.ready).map(|i| i.host.as_str()).collect();
            let replaced = ready.len() == 4 && !ready.contains(&victim.host.as_str());
            Ok(if replaced { Ok(()) } else { Err(format!("ready are {}", ready.join(", "))) })
        });
        let replaced = replaced.await;
        let seconds = killed.elapsed().as_secs_f64();
        let tally = load.finish().await?;
        replaced?;
        Ok(format!("{} replaced in {seconds:.1} s, {}", victim.id, tally.faultless()?))
    }

    /// Step 9: a second deployer at the same time is refused, and told who is at work.
    pub async fn second_deployer(&mut self) -> Outcome {
        let release = Release { version: 2, ..self.release.clone() };
        let mut rival = Rival::deploy(&self.url, &release)?;
        let started = |event: &Event| matches!(event, Event::RevisionStarted { .. });
        rival.reports("that its revision has started", started).await?;
        let pid = rival.pid().to_string();
        // This one does not wait for others.
        let hasty = deploykit::open(&self.url).await?;
        let prepared = hasty.prepare(Release { version: 4, ..release.clone() }.app()?).await?;
        let plan = hasty.plan(Change::Deploy(Box::new(prepared))).await?;
        let refusal = match hasty.apply(plan, &mut Silent).await {
            Err(error) => error,
            Ok(applied) => return Err(Failure::new("a refusal", format!("{applied:?}"))),
        };
        let holder = refusal.context().iter().find(|(key, _)| key == "holder");
        let holder = holder.map(|(_, holder)| holder.clone()).unwrap_or_default();
        expect(
            refusal.kind() == ErrorKind::Conflict && holder.contains(&pid),
            format_args!("a conflict that names the process {pid}"),
            &refusal,
        )?;
        rival.ends_well().await?;
        self.release = release;
        self.site.log_in(&ada()).await?;
        self.check_posts(2, 2).await?;
        Ok(format!("the second was refused (held by {holder}), the first has finished"))
    }

    /// Step 10: the deployer dies in the middle of an update; run again, the update converges.
    pub async fn killed_deployer(&mut self) -> Outcome {
        let release = Release { version: 4, ..self.release.clone() };
        let load = self.load(Mix::Reads);
        let mut rival = Rival::deploy(&self.url, &release)?;
        let first_is_ready = |event: &Event| {
            matches!(event, Event::Instance { service, change: InstanceChange::Ready, .. }
                if service == "posts")
        };
        let reported = rival.reports("a new instance that is ready", first_is_ready).await;
        rival.kill().await?;
        reported?;
        let killed = Instant::now();
        let converged = self.converge(&release).await;
        let seconds = killed.elapsed().as_secs_f64();
        let tally = load.finish().await?;
        let (instances, processes) = converged?;
        self.release = release;
        let figure = tally.faultless()?;
        self.check_posts(2, 4).await?;
        Ok(format!("converged {seconds:.1} s later, {instances} instances{processes}, {figure}"))
    }

    /// Deploys a release that another deployer has left half done, and counts what there is then.
    async fn converge(&self, release: &Release) -> Result<(usize, String), Failure> {
        let half = self.deployer.status(&self.app).await?.revision.map(|revision| revision.outcome);
        expect(
            half == Some(Ended::Applying),
            "a revision that is being applied",
            format_args!("{half:?}"),
        )?;
        let plan = self.plan(release).await?;
        self.apply(plan).await?;
        let status = self.deployer.status(&self.app).await?;
        let outcomes = self.deployer.history(&self.app).await?.into_iter().rev().map(|r| r.outcome);
        let outcomes: Vec<Ended> = outcomes.take(2).collect();
        expect(
            outcomes == [Ended::Succeeded, Ended::Interrupted],
            "a revision that succeeded after one that was interrupted",
            format_args!("{outcomes:?}"),
        )?;
        let app = release.app()?;
        let mut serving = status.observation.instances;
        serving.retain(|instance| app.services.contains_key(&instance.service));
        for (name, replicas) in wanted(&app) {
            let of_it = serving.iter().filter(|i| i.service == *name && i.ready);
            let mut slots: Vec<u32> = of_it.map(|instance| instance.slot).collect();
            slots.sort_unstable();
            expect(
                slots.iter().copied().eq(0..replicas),
                format_args!("{replicas} ready instances of {name}, one for each slot"),
                format_args!("the slots {slots:?}"),
            )?;
        }
        let total: u32 = wanted(&app).map(|(_, replicas)| replicas).sum();
        expect(serving.len() == total as usize, format_args!("{total} instances"), serving.len())?;
        Ok((serving.len(), self.host.check_processes(&serving)?))
    }
}
