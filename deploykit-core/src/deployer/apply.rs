//! Applying a plan: under the lock, as a revision of its own, back where it fails.

use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::try_join;

use super::diff::{fingerprint, steps_back};
use super::lock::DeployLock;
use super::record::Written;
use super::run::{Failure, Policy, Ran};
use super::{Applied, Deployer};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Event, Progress};
use crate::model::OnFailure;
use crate::orchestrator::{EventSender, StepContext};
use crate::plan::{Intent, Plan, Step};
use crate::resolved::ResolvedApp;
use crate::revision::{Outcome, Revision};

const OPERATION: &str = "apply the plan";

pub(super) async fn apply(
    deployer: &Deployer,
    plan: Plan,
    progress: &mut dyn Progress,
) -> Result<Applied> {
    let refuse = |kind, message: String| {
        Error::new(kind, OPERATION, message).on(deployer.backend.name()).with("app", &plan.app)
    };
    let here = deployer.backend.identity();
    if plan.backend != here {
        let message = format!("the plan was made for {}, and this is {here}", plan.backend);
        return Err(refuse(ErrorKind::Invalid, message));
    }
    if plan.is_empty() {
        return Ok(Applied { revision: plan.base, steps: 0, kept_volumes: Vec::new() });
    }
    let lock = DeployLock::acquire(deployer, &plan.app).await?;
    let work = async {
        // Read again under the lock: what the plan rests on must still be so.
        let record = deployer.record(&plan.app);
        let (numbers, seen) =
            try_join(record.numbers(), deployer.backend.observe(&plan.app)).await?;
        if numbers.last().copied() != plan.base {
            let message = "the plan is stale: another revision was applied since; plan again";
            return Err(refuse(ErrorKind::Conflict, message.into()));
        }
        if fingerprint(&seen, deployer.backend.capabilities()) != plan.fingerprint {
            let message = "the plan is stale: what runs has changed since; plan again";
            return Err(refuse(ErrorKind::Conflict, message.into()));
        }
        match &plan.intent {
            Intent::Become(target) => become_target(deployer, &plan, target, &lock, progress).await,
            Intent::Vanish { volumes } => vanish(deployer, &plan, *volumes, &lock, progress).await,
        }
    };
    let done = work.await;
    // A lock that cannot be given back is free after its lease; what was done stands.
    if let Err(error) = lock.release().await {
        tracing::warn!(%error, "the deploy lock could not be given back");
    }
    done
}

/// Records a revision, runs the steps to it, and rolls back where that fails and is asked for.
async fn become_target(
    deployer: &Deployer,
    plan: &Plan,
    target: &ResolvedApp,
    lock: &DeployLock,
    progress: &mut dyn Progress,
) -> Result<Applied> {
    let record = deployer.record(&plan.app);
    let fence = lock.fence();
    let number = plan.base.unwrap_or(0) + 1;
    let revision = begun(deployer, number, target, &plan.cause);
    let (mut history, mut written) = try_join(record.all(), record.add(fence, revision)).await?;
    history.retain(|r| r.number < number);
    for revision in history.iter().filter(|r| r.outcome == Outcome::Applying) {
        record.amend(fence, revision.number, |r| r.outcome = Outcome::Interrupted).await?;
    }
    let mut attempt = Attempt { deployer, lock, history, progress };
    let ran = attempt.run(&written.revision, &plan.steps, Policy::AsAsked).await?;
    let Ran::Failed(failure) = ran else {
        attempt.finish(&mut written, Outcome::Succeeded).await?;
        attempt.tidy(target).await;
        return Ok(Applied {
            revision: Some(number),
            steps: plan.steps.len(),
            kept_volumes: Vec::new(),
        });
    };
    let unfinished = |failure: Failure, what: &str, cause: Error| {
        let message = format!(
            "revision {number} failed ({}), {what}: {}; run it again to converge",
            failure.message,
            cause.message()
        );
        Error::new(cause.kind(), OPERATION, message)
            .on(deployer.backend.name())
            .with("app", &plan.app)
            .with_diagnoses(failure.diagnoses)
            .because(cause)
    };
    let outcome =
        Outcome::Failed { message: failure.message.clone(), diagnoses: failure.diagnoses.clone() };
    if let Err(error) = attempt.finish(&mut written, outcome).await {
        return Err(unfinished(failure, "which could not be recorded", error));
    }
    let aftermath = match attempt.after_failure(number, target, &failure).await {
        Ok(aftermath) => aftermath,
        Err(error) if error.kind() == ErrorKind::Conflict => return Err(error),
        Err(error) => return Err(unfinished(failure, "and was not rolled back", error)),
    };
    let message = format!("revision {number} failed ({}); {aftermath}", failure.message);
    Err(Error::new(ErrorKind::Failed, OPERATION, message)
        .on(deployer.backend.name())
        .with("app", &plan.app)
        .with_diagnoses(failure.diagnoses))
}

/// A new revision that is being applied.
fn begun(deployer: &Deployer, number: u64, target: &ResolvedApp, cause: &str) -> Revision {
    Revision {
        number,
        app: target.clone(),
        cause: cause.to_owned(),
        by: deployer.holder.clone(),
        outcome: Outcome::Applying,
        started_at: SystemTime::now(),
        finished_at: None,
    }
}

struct Attempt<'a, 'p> {
    deployer: &'a Deployer,
    lock: &'a DeployLock,
    /// The revisions before this apply, oldest first.
    history: Vec<Revision>,
    progress: &'p mut dyn Progress,
}

impl Attempt<'_, '_> {
    /// Runs the steps to a revision that has been written.
    async fn run(&mut self, to: &Revision, steps: &[Step], policy: Policy) -> Result<Ran> {
        let started = Event::RevisionStarted { revision: to.number, steps: steps.len() };
        self.progress.event(&started);
        let mut kept: Vec<ResolvedApp> = self.keep(&to.app).map(|r| r.app.clone()).collect();
        kept.push(to.app.clone());
        let (events, reported) = EventSender::channel();
        let context = StepContext {
            fence: self.lock.fence().clone(),
            revision: to.number,
            target: Arc::new(to.app.clone()),
            kept: Arc::new(kept),
            events,
        };
        self.deployer.run(steps, context, reported, self.lock, policy, self.progress).await
    }

    /// The earlier revisions that stay kept beside one of `target`.
    fn keep(&self, target: &ResolvedApp) -> impl Iterator<Item = &Revision> {
        let keep = target.app.keep_revisions.max(1) as usize - 1;
        self.history[self.history.len().saturating_sub(keep)..].iter()
    }

    async fn finish(&mut self, written: &mut Written, outcome: Outcome) -> Result<()> {
        let fence = self.lock.fence();
        let word = outcome.word().to_owned();
        written.revision.outcome = outcome;
        written.revision.finished_at = Some(SystemTime::now());
        self.deployer.record(&fence.app).update(fence, written).await?;
        let revision = written.revision.number;
        self.progress.event(&Event::RevisionFinished { revision, outcome: word });
        Ok(())
    }

    /// Does what the failed service asks for, and says what was done.
    async fn after_failure(
        &mut self,
        number: u64,
        failed: &ResolvedApp,
        failure: &Failure,
    ) -> Result<String> {
        match failure.policy {
            OnFailure::Pause => return Ok("everything was left as it is".into()),
            OnFailure::Continue => return Ok("the rest was carried out".into()),
            OnFailure::RollBack => {}
        }
        let good = self.history.iter().rev().find(|r| r.outcome == Outcome::Succeeded).cloned();
        let Some(good) = good else {
            return Ok("no earlier revision has succeeded, so everything was left as it is".into());
        };
        self.progress.event(&Event::RollingBack { from: number, to: good.number });
        let seen = self.deployer.backend.observe(&failed.app.name).await?;
        let steps = steps_back(&good.app, failed, &seen);
        let cause = format!("rollback to {} because {number} failed", good.number);
        let revision = begun(self.deployer, number + 1, &good.app, &cause);
        let fence = self.lock.fence();
        let mut written = self.deployer.record(&fence.app).add(fence, revision).await?;
        let ran = self.run(&written.revision, &steps, Policy::GoOn).await?;
        match ran {
            Ran::Through => {
                self.finish(&mut written, Outcome::Succeeded).await?;
                self.tidy(&good.app).await;
                Ok(format!(
                    "the app was rolled back to revision {} as revision {}",
                    good.number,
                    number + 1
                ))
            }
            Ran::Failed(Failure { message, diagnoses, .. }) => {
                let text =
                    format!("the rollback to revision {} failed too: {message}", good.number);
                self.finish(&mut written, Outcome::Failed { message, diagnoses }).await?;
                Ok(text)
            }
        }
    }

    /// Forgets what is not kept; what cannot be forgotten now is by the next apply.
    async fn tidy(&mut self, target: &ResolvedApp) {
        if let Err(error) = self.forget(target).await {
            tracing::warn!(%error, "old revisions and secret versions are still there");
        }
    }

    /// Forgets revisions beyond those that are kept, and secret versions that no kept one names.
    async fn forget(&mut self, target: &ResolvedApp) -> Result<()> {
        let fence = self.lock.fence();
        let backend = &self.deployer.backend;
        let record = self.deployer.record(&fence.app);
        let numbers = record.numbers().await?;
        let keep = target.app.keep_revisions.max(1) as usize;
        for number in &numbers[..numbers.len().saturating_sub(keep)] {
            record.forget(fence, *number).await?;
        }
        let mut kept = None;
        for (name, secret) in &target.app.secrets {
            let versions = backend.secrets().versions(&fence.app, name).await?;
            let old = &versions[..versions.len().saturating_sub(secret.keep.max(1) as usize)];
            if old.is_empty() {
                continue;
            }
            let kept = match &mut kept {
                Some(kept) => kept,
                None => kept.insert(record.all().await?),
            };
            let named =
                |version: &u64| kept.iter().any(|r| r.app.secrets.get(name) == Some(version));
            let unused: Vec<u64> = old.iter().filter(|v| !named(v)).copied().collect();
            if !unused.is_empty() {
                backend.secrets().delete(&fence.app, name, &unused).await?;
            }
        }
        Ok(())
    }
}

/// Removes everything of an app, its record last, so that a killed removal can be run again.
async fn vanish(
    deployer: &Deployer,
    plan: &Plan,
    volumes: bool,
    lock: &DeployLock,
    progress: &mut dyn Progress,
) -> Result<Applied> {
    let fence = lock.fence();
    let record = deployer.record(&plan.app);
    let nothing = ResolvedApp {
        app: crate::model::App::new(plan.app.clone()),
        images: Default::default(),
        secrets: Default::default(),
        restarts: Default::default(),
    };
    // Stop signal and grace period of what is removed are those that it was made with.
    let newest = record.newest().await?.map_or(nothing, |r| r.app);
    let (events, reported) = EventSender::channel();
    let context = StepContext {
        fence: fence.clone(),
        revision: plan.base.unwrap_or(0),
        target: Arc::new(newest),
        kept: Arc::default(),
        events,
    };
    match deployer.run(&plan.steps, context, reported, lock, Policy::GoOn, progress).await? {
        Ran::Through => {}
        Ran::Failed(failure) => {
            let message = format!("the removal failed ({}); run it again", failure.message);
            return Err(Error::new(ErrorKind::Failed, OPERATION, message)
                .on(deployer.backend.name())
                .with("app", &plan.app)
                .with_diagnoses(failure.diagnoses));
        }
    }
    for (name, _) in deployer.backend.secrets().list(&plan.app).await? {
        let versions = deployer.backend.secrets().versions(&plan.app, &name).await?;
        deployer.backend.secrets().delete(&plan.app, &name, &versions).await?;
    }
    record.clear(fence).await?;
    let left = deployer.backend.observe(&plan.app).await?.volumes;
    let kept_volumes = if volumes { Vec::new() } else { left.into_iter().collect() };
    Ok(Applied { revision: None, steps: plan.steps.len(), kept_volumes })
}
