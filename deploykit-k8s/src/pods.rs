//! What a pod says of the instance that it is.

use std::time::SystemTime;

use deploykit_core::model::{Address, ServiceName};
use deploykit_core::{Exit, Instance, InstanceState, Reason, SpecHash};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt;

use crate::labels;
use crate::quantity::Quantity;

/// What a container that was ended for want of memory exits with.
const OUT_OF_MEMORY: &str = "OOMKilled";
/// How many of the last lines are evidence.
pub(crate) const TAIL: usize = 10;

/// The status of the one container.
fn status(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

fn exit(ended: &ContainerStateTerminated) -> Exit {
    match ended.signal.filter(|signal| *signal > 0) {
        Some(signal) => Exit::Signal(signal),
        // What runtimes report of a signal, as shells do.
        None if (129..=159).contains(&ended.exit_code) => Exit::Signal(ended.exit_code - 128),
        None => Exit::Code(ended.exit_code),
    }
}

/// The number that a StatefulSet has given to a pod.
pub(crate) fn ordinal(pod: &Pod) -> Option<u32> {
    pod.labels().get("apps.kubernetes.io/pod-index")?.parse().ok()
}

/// The pod's condition of that type, where it is not met: its reason and message.
fn unmet(pod: &Pod, kind: &str) -> Option<(String, String)> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let found = conditions.iter().find(|c| c.type_ == kind && c.status == "False")?;
    Some((found.reason.clone().unwrap_or_default(), found.message.clone().unwrap_or_default()))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|s| s.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready");
    ready.any(|c| c.status == "True") && pod.metadata.deletion_timestamp.is_none()
}

fn state(pod: &Pod) -> InstanceState {
    let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Pending");
    let now = status(pod).and_then(|s| s.state.clone()).unwrap_or_default();
    let ended = now.terminated.as_ref().map(exit);
    match phase {
        "Succeeded" => InstanceState::Exited(ended.unwrap_or(Exit::Code(0))),
        "Failed" => InstanceState::Exited(ended.unwrap_or(Exit::Lost)),
        _ if pod.metadata.deletion_timestamp.is_some() => InstanceState::Stopping,
        _ => match now {
            ContainerState { running: Some(_), .. } => InstanceState::Running,
            ContainerState { terminated: Some(_), .. } => InstanceState::BackOff,
            ContainerState { waiting: Some(w), .. }
                if w.reason.as_deref() == Some("CrashLoopBackOff") =>
            {
                InstanceState::BackOff
            }
            _ => InstanceState::Starting,
        },
    }
}

/// The instance that a pod is; nothing where it is none of ours.
pub(crate) fn instance(pod: &Pod) -> Option<Instance> {
    let service = ServiceName::new(pod.labels().get(labels::SERVICE)?.clone()).ok()?;
    let revision = pod.labels().get(labels::REVISION).and_then(|r| r.parse().ok()).unwrap_or(0);
    let hash = pod.annotations().get(labels::HASH).cloned().unwrap_or_default();
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.clone());
    let ports = container.iter().flat_map(|c| c.ports.iter().flatten());
    let addresses = ports.filter_map(|port| {
        let port = u16::try_from(port.container_port).ok()?;
        Some(Address { host: address.clone()?, port })
    });
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("no node");
    let running = status(pod).and_then(|s| s.state.as_ref()?.running.as_ref()?.started_at.clone());
    Some(Instance {
        id: pod.name_any(),
        service,
        revision,
        hash: SpecHash::from_text(hash),
        slot: 0,
        state: state(pod),
        ready: is_ready(pod),
        restarts: status(pod).map_or(0, |s| u32::try_from(s.restart_count).unwrap_or(0)),
        addresses: addresses.collect(),
        started_at: running.map(|time| SystemTime::from(time.0)),
        host: format!("pod {} on {node}", pod.uid().unwrap_or_default()),
        trouble: trouble(pod),
    })
}

/// How the container ended last, whether it has been started again since or not.
fn last_end(pod: &Pod) -> Option<&ContainerStateTerminated> {
    let status = status(pod)?;
    let now = status.state.as_ref().and_then(|s| s.terminated.as_ref());
    now.or_else(|| status.last_state.as_ref()?.terminated.as_ref())
}

fn lines(text: Option<&str>) -> Vec<String> {
    let lines: Vec<String> = text.unwrap_or_default().lines().map(str::to_owned).collect();
    lines[lines.len().saturating_sub(TAIL)..].to_vec()
}

/// What is wrong with a pod, as far as its own status tells.
pub(crate) fn trouble(pod: &Pod) -> Option<Reason> {
    if is_ready(pod) {
        return None;
    }
    if let Some((reason, message)) = unmet(pod, "PodScheduled")
        && reason == "Unschedulable"
    {
        return Some(Reason::Unschedulable { message });
    }
    let status = status(pod)?;
    let state = status.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let message = waiting.message.clone().unwrap_or_default();
        match waiting.reason.as_deref() {
            Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName") => {
                return pull(&status.image, &message);
            }
            Some("CreateContainerConfigError") => return Some(configuration(message)),
            Some("CreateContainerError" | "RunContainerError" | "ErrImageNeverPull") => {
                return Some(Reason::StartFailed { message });
            }
            _ => {}
        }
    }
    let ended = last_end(pod)?;
    if ended.reason.as_deref() == Some(OUT_OF_MEMORY) {
        return Some(Reason::OutOfMemory { limit: memory_limit(pod) });
    }
    if ended.reason.as_deref() == Some("StartError") {
        return Some(Reason::StartFailed { message: ended.message.clone().unwrap_or_default() });
    }
    let job_done = exit(ended).is_success() && pod.labels().contains_key(labels::RUN);
    if state.running.is_some() || job_done { None } else { crash(pod) }
}

/// How the container ended last, as a crash.
pub(crate) fn crash(pod: &Pod) -> Option<Reason> {
    let (status, ended) = (status(pod)?, last_end(pod)?);
    Some(Reason::CrashLoop {
        exit: exit(ended).to_string(),
        restarts: u32::try_from(status.restart_count).unwrap_or(0),
        log: lines(ended.message.as_deref()),
    })
}

fn memory_limit(pod: &Pod) -> Option<u64> {
    let container = pod.spec.as_ref()?.containers.first()?;
    let limit = container.resources.as_ref()?.limits.as_ref()?.get("memory")?;
    limit.0.parse::<Quantity>().ok()?.to_u64()
}

/// What the kubelet says of a pull that fails. A registry that is out of reach may come back.
pub(crate) fn pull(image: &str, message: &str) -> Option<Reason> {
    let said = message.to_ascii_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let image = image.to_owned();
    // A back-off alone repeats nothing of what happened.
    if says(&["unauthorized", "denied", "forbidden", "authentication"]) {
        return Some(Reason::PullDenied { image, message: message.to_owned() });
    }
    if says(&[
        "not found",
        "manifest unknown",
        "invalid reference",
        "couldn't parse",
        "invalidimagename",
    ]) {
        return Some(Reason::ImageNotFound { image });
    }
    None
}

/// What the kubelet says of a container that it cannot make.
fn configuration(message: String) -> Reason {
    match missing_secret(&message) {
        Some(secret) => Reason::SecretMissing { secret },
        None => Reason::StartFailed { message },
    }
}

/// The name in `secret "NAME" not found`.
pub(crate) fn missing_secret(message: &str) -> Option<String> {
    let (_, rest) = message.split_once("secret \"")?;
    let (name, rest) = rest.split_once('"')?;
    rest.contains("not found").then(|| name.to_owned())
}
