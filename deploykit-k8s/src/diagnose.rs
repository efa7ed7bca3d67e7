//! Why a rollout does not get on, captured while everything is still there: from the status of
//! pods, and where that says too little from events.

use std::time::Duration;

use deploykit_core::{Diagnosis, Instance, InstanceState, Reason};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::ResourceExt;
use kube::api::{ListParams, LogParams};

use crate::cluster::Cluster;
use crate::execute::Work;
use crate::pods::{self, TAIL};

/// How long the search for evidence may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is wrong with a pod that is not ready.
pub(crate) async fn pod(work: &Work<'_>, pod: &Pod, instance: &Instance) -> Diagnosis {
    let reason = match &instance.trouble {
        Some(trouble) => trouble.clone(),
        None => {
            let events = events(work.cluster, &pod.name_any()).await;
            let told = events.iter().rev().find_map(|event| event_reason(event, pod));
            told.unwrap_or_else(|| silent(pod, instance))
        }
    };
    let reason = with_log(work.cluster, reason, instance).await;
    Diagnosis { service: work.name.clone(), instance: Some(instance.id.clone()), reason }
}

async fn with_log(cluster: &Cluster, mut reason: Reason, instance: &Instance) -> Reason {
    if let Reason::CrashLoop { log, .. } | Reason::ProbeFailing { log, .. } = &mut reason
        && log.is_empty()
    {
        let previous = instance.state != InstanceState::Running && instance.restarts > 0;
        *log = tail(cluster, &instance.id, previous).await;
    }
    reason
}

/// What a pod that nobody complains of is waiting for.
fn silent(pod: &Pod, instance: &Instance) -> Reason {
    if instance.restarts > 0
        && let Some(reason) = pods::crash(pod)
    {
        return reason;
    }
    let message = match instance.state {
        InstanceState::Running if instance.ready => "it was ready, but not for long enough",
        InstanceState::Running => "it runs, and no probe has passed yet",
        _ => "it has not been started yet",
    };
    Reason::Slow { message: message.into() }
}

/// The events of an object, oldest first. Evidence that cannot be had must not hide the failure.
async fn events(cluster: &Cluster, object: &str) -> Vec<Event> {
    let api = cluster.api::<Event>();
    let params = ListParams::default().fields(&format!("involvedObject.name={object}"));
    let listed = tokio::time::timeout(PATIENCE, api.list(&params)).await;
    let mut events = listed.ok().and_then(Result::ok).map(|list| list.items).unwrap_or_default();
    events.sort_by_key(|event| {
        let last = event.last_timestamp.as_ref().map(|t| t.0);
        last.or_else(|| event.event_time.as_ref().map(|t| t.0))
    });
    events
}

/// What an event tells of a pod's trouble.
fn event_reason(event: &Event, pod: &Pod) -> Option<Reason> {
    let message = event.message.clone().unwrap_or_default();
    match event.reason.as_deref()? {
        "Unhealthy" => {
            let (probe, answer) = message.split_once(" probe failed")?;
            let answer = answer.trim_start_matches([':', ' ']);
            let answer = if answer.is_empty() { "no answer" } else { answer };
            Some(Reason::ProbeFailing {
                probe: probe.to_ascii_lowercase(),
                answer: answer.to_owned(),
                log: Vec::new(),
            })
        }
        "FailedMount" => Some(match pods::missing_secret(&message) {
            Some(secret) => Reason::SecretMissing { secret },
            None => Reason::StartFailed { message },
        }),
        "FailedScheduling" if pod.spec.as_ref().is_none_or(|s| s.node_name.is_none()) => {
            Some(Reason::Unschedulable { message })
        }
        "FailedCreatePodSandBox" => Some(Reason::StartFailed { message }),
        // What a back-off no longer says.
        "Failed" if message.starts_with("Failed to pull image") => {
            let image = pod.spec.as_ref()?.containers.first()?.image.clone()?;
            Some(pods::pull(&image, &message).unwrap_or(Reason::StartFailed { message }))
        }
        _ => None,
    }
}

/// Why a controller has made no instance: a quota, an admission webhook, a policy.
pub(crate) async fn nothing_made(
    work: &Work<'_>,
    kind: &str,
    object: &str,
    refused: &Option<String>,
) -> Option<Diagnosis> {
    let told = match refused {
        Some(message) => Some(message.clone()),
        None => {
            let events = events(work.cluster, object).await.into_iter().rev();
            let mut failed = events.filter(|e| e.reason.as_deref() == Some("FailedCreate"));
            failed.find_map(|event| event.message)
        }
    };
    let message = told?;
    let reason = Reason::StartFailed { message: format!("the {kind} makes no pods: {message}") };
    Some(Diagnosis { service: work.name.clone(), instance: None, reason })
}

/// The last lines of an instance.
pub(crate) async fn tail(cluster: &Cluster, pod: &str, previous: bool) -> Vec<String> {
    let api = cluster.api::<Pod>();
    let params = LogParams { tail_lines: Some(TAIL as i64), previous, ..LogParams::default() };
    let read = tokio::time::timeout(PATIENCE, api.logs(pod, &params)).await;
    let text = read.ok().and_then(Result::ok).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
