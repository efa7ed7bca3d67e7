//! Why a rollout does not get on, captured while everything is still there.

use std::time::Duration;

use futures_util::StreamExt;

use super::Work;
use crate::diagnosis::{Diagnosis, Reason};
use crate::error::{Error, ErrorKind};
use crate::observation::{Instance, InstanceState};
use crate::orchestrator::LogQuery;
use crate::runtime::Runtime;

/// How many of an instance's last lines are kept as evidence.
const TAIL: usize = 10;

/// How long the search for evidence may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often an instance may be started again before its rollout has failed.
const CRASHES: u32 = 3;

/// Whether it is clear before any deadline that an instance will not get ready.
pub(super) fn is_hopeless(instance: &Instance) -> bool {
    let broken = matches!(
        instance.trouble,
        Some(
            Reason::StartFailed { .. }
                | Reason::PortTaken { .. }
                | Reason::ImageNotFound { .. }
                | Reason::PullDenied { .. }
                | Reason::SecretMissing { .. }
                | Reason::OutOfMemory { .. }
        )
    );
    !instance.ready && (broken || instance.exit().is_some() || instance.restarts >= CRASHES)
}

impl<R: Runtime> Work<'_, R> {
    /// What is wrong with an instance that is not ready.
    pub(super) async fn diagnose(&self, instance: &Instance) -> Diagnosis {
        let fallback = || match instance.state {
            InstanceState::Exited(exit) => Reason::CrashLoop {
                exit: exit.to_string(),
                restarts: instance.restarts,
                log: Vec::new(),
            },
            InstanceState::Running if instance.ready => {
                Reason::Slow { message: "it was ready, but not for long enough".into() }
            }
            InstanceState::Running => {
                Reason::Slow { message: "it runs, and no probe has passed yet".into() }
            }
            _ => Reason::Slow { message: "it has not been started yet".into() },
        };
        let mut reason = instance.trouble.clone().unwrap_or_else(fallback);
        if let Reason::CrashLoop { log, .. }
        | Reason::ProbeFailing { log, .. }
        | Reason::JobFailed { log, .. } = &mut reason
            && log.is_empty()
        {
            *log = self.tail(&instance.id).await;
        }
        Diagnosis { service: self.name.clone(), instance: Some(instance.id.clone()), reason }
    }

    /// The last lines of an instance; evidence that cannot be had must not hide the failure.
    pub(super) async fn tail(&self, instance: &str) -> Vec<String> {
        let query = LogQuery {
            instance: Some(instance.to_owned()),
            tail: Some(TAIL),
            ..LogQuery::default()
        };
        let read = async {
            let lines = self.runtime.logs(&self.context.fence.app, &query).await.ok()?;
            let lines: Vec<String> =
                lines.filter_map(|l| async { l.ok().map(|l| l.line) }).collect().await;
            Some(lines[lines.len().saturating_sub(TAIL)..].to_vec())
        };
        tokio::time::timeout(PATIENCE, read).await.ok().flatten().unwrap_or_default()
    }

    /// The error of a rollout that did not get on because of `instances`.
    pub(super) async fn failure(&self, message: String, instances: &[&Instance]) -> Error {
        let mut diagnoses = Vec::new();
        for instance in instances {
            diagnoses.push(self.diagnose(instance).await);
        }
        Error::new(ErrorKind::Failed, "roll out", message)
            .on(self.runtime.name())
            .with("service", self.name)
            .with_diagnoses(diagnoses)
    }
}
