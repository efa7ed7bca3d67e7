//! Executing the steps of a plan, each as soon as what it waits for is there.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tracing::Instrument as _;

use super::Deployer;
use super::lock::DeployLock;
use crate::diagnosis::{Diagnosis, Reason};
use crate::error::{Error, Result};
use crate::event::{Event, Progress};
use crate::model::{Condition, OnFailure, ServiceName};
use crate::orchestrator::StepContext;
use crate::plan::{Goal, Step};

/// How often a step is tried again when its backend was out of reach.
const RETRIES: u32 = 5;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum State {
    Waiting,
    Running,
    /// Its instances have been started.
    Started,
    Done,
    Failed,
}

/// What failed.
pub(super) struct Failure {
    pub(super) message: String,
    pub(super) diagnoses: Vec<Diagnosis>,
    /// What the failed service asks for.
    pub(super) policy: OnFailure,
}

/// Who says what happens when a step fails.
#[derive(Clone, Copy)]
pub(super) enum Policy {
    /// The service's update policy.
    AsAsked,
    /// Nobody: what fails on a way back or a removal stops nothing else.
    GoOn,
}

/// How the steps went.
pub(super) enum Ran {
    Through,
    Failed(Failure),
}

impl Deployer {
    /// Runs steps. After a failure, what does not ask to go on is stopped where it is.
    pub(super) async fn run(
        &self,
        steps: &[Step],
        context: StepContext,
        mut events: tokio::sync::mpsc::UnboundedReceiver<Event>,
        lock: &DeployLock,
        policy: Policy,
        progress: &mut dyn Progress,
    ) -> Result<Ran> {
        let mut states = vec![State::Waiting; steps.len()];
        let mut running = FuturesUnordered::new();
        let mut failure: Option<Failure> = None;
        let lost = lock.lost();
        tokio::pin!(lost);
        loop {
            block(steps, &mut states, failure.as_mut());
            for place in 0..steps.len() {
                if states[place] != State::Waiting {
                    continue;
                }
                let step = &steps[place];
                let met = |(before, condition): &(usize, Condition)| match condition {
                    Condition::Started => states[*before] >= State::Started,
                    Condition::Healthy | Condition::Completed => states[*before] == State::Done,
                };
                if step.after.iter().all(met) {
                    states[place] = State::Running;
                    progress.event(&Event::StepStarted { step: place, goal: step.goal.clone() });
                    let context = &context;
                    let span = tracing::info_span!(
                        "step",
                        app = %context.fence.app,
                        service = subject(&step.goal).map(tracing::field::display),
                        revision = context.revision,
                        goal = %step.goal,
                    );
                    let executed = self.execute(step, context).instrument(span);
                    running.push(async move { (place, executed.await) });
                }
            }
            if running.is_empty() {
                break;
            }
            let (place, result) = tokio::select! {
                biased;
                error = &mut lost => return Err(unreached(error, steps, &states)),
                Some(event) = events.recv() => {
                    if let Event::Started { service } = &event {
                        note_started(steps, &mut states, service);
                    }
                    progress.event(&event);
                    continue;
                }
                Some(ended) = running.next() => ended,
            };
            while let Ok(event) = events.try_recv() {
                progress.event(&event);
            }
            let step = &steps[place];
            let goal = step.goal.clone();
            let Err(error) = result else {
                states[place] = State::Done;
                progress.event(&Event::StepFinished { step: place, goal });
                continue;
            };
            if error.kind() == crate::ErrorKind::Conflict && error.diagnoses().is_empty() {
                // Somebody else is at work: nothing may be written any more.
                return Err(error);
            }
            states[place] = State::Failed;
            let diagnoses = diagnoses(step, &error);
            let policy = match policy {
                Policy::GoOn => OnFailure::Continue,
                Policy::AsAsked => asked(&context, &goal),
            };
            let message = format!("{goal}: {}", error.message());
            progress.event(&Event::StepFailed {
                step: place,
                goal,
                message: message.clone(),
                diagnoses: diagnoses.clone(),
            });
            match &mut failure {
                Some(first) => {
                    first.diagnoses.extend(diagnoses);
                    if first.policy == OnFailure::Continue {
                        first.policy = policy;
                    }
                }
                None => failure = Some(Failure { message, diagnoses, policy }),
            }
            if policy != OnFailure::Continue {
                block(steps, &mut states, failure.as_mut());
                break;
            }
        }
        Ok(failure.map_or(Ran::Through, Ran::Failed))
    }

    /// Executes one step; steps are idempotent, so one whose backend was out of reach is tried
    /// again. A finished job is noted at once.
    async fn execute(&self, step: &Step, context: &StepContext) -> Result<()> {
        let mut pause = Duration::from_millis(100);
        let mut retries = 0;
        loop {
            match self.backend.execute(step, context).await {
                Err(error) if error.is_retryable() && retries < RETRIES => {
                    tracing::warn!(%error, goal = %step.goal, "a step is tried again");
                    tokio::time::sleep(pause).await;
                    retries += 1;
                    pause *= 2;
                }
                Err(error) => return Err(error),
                Ok(()) => break,
            }
        }
        if let Goal::Job { job, run } = &step.goal {
            self.record(&context.fence.app).add_run(&context.fence, job, run).await?;
        }
        Ok(())
    }
}

/// The loss of the lock, where that is because the backend does not answer: then that is also what
/// keeps from being ready what was being worked on.
fn unreached(lost: Error, steps: &[Step], states: &[State]) -> Error {
    if lost.kind() != crate::ErrorKind::Unavailable {
        return lost;
    }
    let running = steps.iter().zip(states);
    let running = running.filter(|(_, state)| matches!(state, State::Running | State::Started));
    let found = running.flat_map(|(step, _)| diagnoses(step, &lost)).collect();
    lost.with_diagnoses(found)
}

fn note_started(steps: &[Step], states: &mut [State], service: &ServiceName) {
    for (step, state) in steps.iter().zip(states) {
        let this = match &step.goal {
            Goal::Service(name) | Goal::Job { job: name, .. } => name == service,
            _ => false,
        };
        if this && *state == State::Running {
            *state = State::Started;
        }
    }
}

fn subject(goal: &Goal) -> Option<&ServiceName> {
    match goal {
        Goal::Service(name)
        | Goal::Job { job: name, .. }
        | Goal::Schedule(name)
        | Goal::RemoveService(name) => Some(name),
        _ => None,
    }
}

/// Gives up what waits for something that has failed.
fn block(steps: &[Step], states: &mut [State], failure: Option<&mut Failure>) {
    let Some(failure) = failure else { return };
    for (place, step) in steps.iter().enumerate() {
        let failed = |(before, _): &&(usize, Condition)| states[*before] == State::Failed;
        let Some((blocker, _)) = step.after.iter().find(failed) else { continue };
        if states[place] == State::Waiting {
            states[place] = State::Failed;
            failure.diagnoses.extend(blocked(step, &steps[*blocker]));
        }
    }
}

fn blocked(step: &Step, on: &Step) -> Option<Diagnosis> {
    let (service, on) = (subject(&step.goal)?.clone(), subject(&on.goal)?.clone());
    let reason = Reason::DependencyBlocked { on, message: "it has failed".into() };
    Some(Diagnosis { service, instance: None, reason })
}

fn diagnoses(step: &Step, error: &Error) -> Vec<Diagnosis> {
    if !error.diagnoses().is_empty() {
        return error.diagnoses().to_vec();
    }
    let message = error.to_string();
    let reason = if error.is_retryable() {
        Reason::BackendUnreachable { message }
    } else {
        Reason::StartFailed { message }
    };
    let diagnosis =
        |service: &ServiceName| Diagnosis { service: service.clone(), instance: None, reason };
    subject(&step.goal).map(diagnosis).into_iter().collect()
}

fn asked(context: &StepContext, goal: &Goal) -> OnFailure {
    let service = subject(goal).and_then(|name| context.target.app.services.get(name));
    service.map(|s| s.update.on_failure).unwrap_or_default()
}
