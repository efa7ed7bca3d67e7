//! `k8s-rollout-status-tables`: the tables of kubectl's tests of `rollout status`.

use deploykit_k8s::rollout::{DaemonSet, Deployment, Progress, StatefulSet};
use serde_json::Value;

use super::text;

/// How many replicas the StatefulSets of the reference's tests want, and the partition of those
/// whose settings the recording leaves out.
const STATEFUL_SET: (i32, i32) = (3, 2);

pub(super) fn check(case: &Value) -> Result<(), String> {
    let status: fn(&Value) -> Result<Progress, String> = match text(case, "test")? {
        "TestDeploymentStatusViewerStatus" => deployment,
        "TestDaemonSetStatusViewerStatus" => daemon_set,
        "TestStatefulSetStatusViewerStatus" => stateful_set,
        other => return Err(format!("there is no table `{other}`")),
    };
    let rows = case["rows"].as_array().ok_or("the case has no list `rows`")?;
    let failures = rows.iter().filter_map(|row| {
        let why = row_fails(row, status(row)).err()?;
        Some(format!("{}: {why}", row["name"]))
    });
    let failures: Vec<String> = failures.collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("; ")) }
}

fn row_fails(row: &Value, found: Result<Progress, String>) -> Result<(), String> {
    let fails = row["err"].as_bool().unwrap_or(false);
    let progress = match (found, fails) {
        (Err(_), true) => return Ok(()),
        (Ok(progress), false) => progress,
        (found, _) => return Err(format!("expected an error: {fails}, found {found:?}")),
    };
    let message = message(&row["msg"])?;
    // The reference's own comparison: it lets a rollout that still goes on pass as done.
    let done = row["done"].as_bool().unwrap_or(false);
    let done_fits = progress.done == done || (done && message.starts_with("Waiting"));
    if progress.message == message && done_fits {
        return Ok(());
    }
    Err(format!("expected {message:?}, done {done}; found {progress:?}"))
}

/// A text, or the recorded call of `fmt.Sprintf` that makes it.
fn message(recorded: &Value) -> Result<String, String> {
    if let Some(text) = recorded.as_str() {
        return Ok(text.to_owned());
    }
    let unknown = || format!("a message is neither a text nor a format: {recorded}");
    let mut arguments = recorded["args"].as_array().ok_or_else(unknown)?.iter();
    let format = arguments.next().and_then(Value::as_str).ok_or_else(unknown)?;
    let mut message = String::new();
    let mut pieces = format.split('%');
    message += pieces.next().unwrap_or_default();
    for piece in pieces {
        let argument = arguments.next().ok_or_else(unknown)?;
        message += &argument.as_str().map_or_else(|| argument.to_string(), str::to_owned);
        message += piece.get(1..).unwrap_or_default();
    }
    Ok(message)
}

/// A number of the row or its status; 0 where it is absent.
fn number(value: &Value, field: &str) -> i32 {
    value[field].as_i64().and_then(|n| i32::try_from(n).ok()).unwrap_or(0)
}

fn deployment(row: &Value) -> Result<Progress, String> {
    let status = &row["status"];
    let conditions = status["Conditions"].as_array().cloned().unwrap_or_default();
    Deployment {
        name: "foo".into(),
        generation: number(row, "generation").into(),
        observed_generation: number(status, "ObservedGeneration").into(),
        wanted: number(row, "specReplicas"),
        replicas: number(status, "Replicas"),
        updated: number(status, "UpdatedReplicas"),
        available: number(status, "AvailableReplicas"),
        deadline_exceeded: conditions.iter().any(|c| c["Reason"] == "ProgressDeadlineExceeded"),
    }
    .progress()
}

fn daemon_set(row: &Value) -> Result<Progress, String> {
    let status = &row["status"];
    DaemonSet {
        name: "foo".into(),
        generation: number(row, "generation").into(),
        observed_generation: number(status, "ObservedGeneration").into(),
        desired: number(status, "DesiredNumberScheduled"),
        updated: number(status, "UpdatedNumberScheduled"),
        available: number(status, "NumberAvailable"),
        rolling: row["strategy"]["Type"]["$id"] != "apps.OnDeleteDaemonSetStrategyType",
    }
    .progress()
}

fn stateful_set(row: &Value) -> Result<Progress, String> {
    let (status, strategy) = (&row["status"], &row["strategy"]);
    let revision = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    let (wanted, partition) = STATEFUL_SET;
    StatefulSet {
        generation: number(row, "generation").into(),
        observed_generation: number(status, "ObservedGeneration").into(),
        wanted: Some(wanted),
        ready: number(status, "ReadyReplicas"),
        current: number(status, "CurrentReplicas"),
        updated: number(status, "UpdatedReplicas"),
        current_revision: revision("CurrentRevision"),
        update_revision: revision("UpdateRevision"),
        rolling: strategy["Type"]["$id"] == "apps.RollingUpdateStatefulSetStrategyType",
        partition: strategy.get("RollingUpdate").map(|_| Some(partition)),
    }
    .progress()
}
