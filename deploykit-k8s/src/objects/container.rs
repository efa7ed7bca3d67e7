//! The one container of a pod.

use std::path::Path;
use std::time::Duration;

use deploykit_core::model::{
    Address, Check, Contract, ImageSpec, Listen, Mount, Probe, Protocol, Resources, VolumeScope,
};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, ExecAction, GRPCAction,
    HTTPGetAction, HTTPHeader, Lifecycle, LifecycleHandler, ObjectFieldSelector, Probe as PodProbe,
    ResourceRequirements, SecurityContext, SleepAction, TCPSocketAction, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::pod::{CONFIGS, SECRETS, mount_name};
use super::{Part, volume};
use crate::images;
use crate::labels::service_object;

/// The name of the container.
pub(crate) const MAIN: &str = "main";

const SECRETS_DIR: &str = "/run/secrets";
const CONFIGS_DIR: &str = "/run/configs";
const VOLUMES_DIR: &str = "/volumes";

/// How long a pod that is to end goes on taking requests: until every node has heard that no new
/// ones shall be sent to it.
const DRAIN: Duration = Duration::from_secs(3);

fn drains(part: &Part<'_>) -> bool {
    !part.template.ports.is_empty()
}

/// The grace period, with the time for draining in it.
pub(super) fn grace_seconds(part: &Part<'_>) -> i64 {
    let drain = if drains(part) { DRAIN } else { Duration::ZERO };
    whole_seconds(part.template.stop_grace + drain).into()
}

/// Whole seconds, rounded up: what Kubernetes counts in.
pub(super) fn whole_seconds(time: Duration) -> i32 {
    let seconds = time.as_secs() + u64::from(time.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

pub(super) fn container(part: &Part<'_>) -> Container {
    let template = &part.template;
    let workload = part.target.app.workload(part.name);
    let binary = workload.is_some_and(|w| matches!(w.image, ImageSpec::Binary(_)));
    let words = |words: &[String]| words.iter().map(|word| literal(word)).collect::<Vec<_>>();
    let (command, args) = if binary {
        // The image's entry point is the executable.
        (Vec::new(), [words(&template.command), words(&template.args)].concat())
    } else {
        (words(&template.command), words(&template.args))
    };
    let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
    let probe = |probe: &Option<Probe>| probe.as_ref().map(|probe| pod_probe(part, probe));
    Container {
        name: MAIN.into(),
        image: Some(images::pull_reference(part.config, workload, &part.image)),
        command: some(command),
        args: some(args),
        env: Some(environment(part)),
        working_dir: template.workdir.as_deref().map(text),
        ports: Some(ports(part)).filter(|ports| !ports.is_empty()),
        resources: resources(&template.resources),
        startup_probe: probe(&template.probes.startup),
        readiness_probe: probe(&template.probes.readiness),
        liveness_probe: probe(&template.probes.liveness),
        lifecycle: lifecycle(part),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            ..SecurityContext::default()
        }),
        // The last lines tell why it ended, where the log is gone already.
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        volume_mounts: Some(mounts(part)).filter(|mounts| !mounts.is_empty()),
        ..Container::default()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A text in which nothing is
/// [replaced](https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/).
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

fn lifecycle(part: &Part<'_>) -> Option<Lifecycle> {
    let pre_stop = drains(part).then(|| LifecycleHandler {
        sleep: Some(SleepAction { seconds: DRAIN.as_secs() as i64 }),
        ..LifecycleHandler::default()
    });
    pre_stop.map(|pre_stop| Lifecycle { pre_stop: Some(pre_stop), ..Lifecycle::default() })
}

fn from_field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector { field_path: path.into(), ..Default::default() };
    let source = EnvVarSource { field_ref: Some(field), ..Default::default() };
    EnvVar { name: name.into(), value: None, value_from: Some(source) }
}

/// The environment contract and the app's own variables.
fn environment(part: &Part<'_>) -> Vec<EnvVar> {
    let template = &part.template;
    let app = &part.target.app.name;
    let peers = template
        .peers
        .iter()
        .map(|(peer, port)| (peer, Address { host: service_object(app, peer), port: *port }));
    let contract = Contract {
        instance: "",
        listen: Listen {
            host: "0.0.0.0".into(),
            advertise: String::new(),
            ports: template.ports.iter().map(|p| (p.name.clone(), p.port)).collect(),
        },
        peers: peers.collect(),
        secrets_dir: SECRETS_DIR,
        configs_dir: CONFIGS_DIR,
        volumes_dir: VOLUMES_DIR,
    };
    let mut variables = contract.variables();
    variables.extend(template.env.clone());
    variables
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "ADVERTISE_HOST" => from_field(&name, "status.podIP"),
            "DEPLOYKIT_INSTANCE" => from_field(&name, "metadata.name"),
            _ => EnvVar { name, value: Some(literal(&value)), value_from: None },
        })
        .collect()
}

/// What a protocol is called on the wire.
pub(super) fn wire_protocol(protocol: Protocol) -> String {
    match protocol {
        Protocol::Udp => "UDP".into(),
        _ => "TCP".into(),
    }
}

fn ports(part: &Part<'_>) -> Vec<ContainerPort> {
    let of = |port: &deploykit_core::model::Port| ContainerPort {
        container_port: port.port.into(),
        protocol: Some(wire_protocol(port.protocol)),
        ..ContainerPort::default()
    };
    part.template.ports.iter().map(of).collect()
}

fn resources(resources: &Resources) -> Option<ResourceRequirements> {
    let amounts = |cpu: Option<deploykit_core::model::Cpu>,
                   memory: Option<deploykit_core::model::Bytes>| {
        let cpu = cpu.map(|cpu| ("cpu".to_owned(), Quantity(format!("{}m", cpu.as_millis()))));
        let memory = memory.map(|m| ("memory".to_owned(), Quantity(m.get().to_string())));
        let amounts: std::collections::BTreeMap<_, _> = cpu.into_iter().chain(memory).collect();
        (!amounts.is_empty()).then_some(amounts)
    };
    (*resources != Resources::default()).then(|| ResourceRequirements {
        limits: amounts(resources.cpu_limit, resources.memory_limit),
        requests: amounts(resources.cpu_request, resources.memory_request),
        claims: None,
    })
}

fn pod_probe(part: &Part<'_>, probe: &Probe) -> PodProbe {
    let first = part.template.ports.first().map_or(0, |port| port.port);
    let port = i32::from(probe.check.port().unwrap_or(first));
    let at = IntOrString::Int(port);
    let mut asked = PodProbe {
        // Kubernetes asks once a second at the most.
        period_seconds: Some(whole_seconds(probe.interval).max(1)),
        timeout_seconds: Some(whole_seconds(probe.timeout).max(1)),
        initial_delay_seconds: Some(whole_seconds(probe.initial_delay)).filter(|s| *s > 0),
        failure_threshold: Some(i32::try_from(probe.failure_threshold).unwrap_or(i32::MAX)),
        success_threshold: Some(i32::try_from(probe.success_threshold).unwrap_or(i32::MAX)),
        ..PodProbe::default()
    };
    match &probe.check {
        Check::Http(check) => {
            let headers = check.headers.iter();
            let headers: Vec<HTTPHeader> = headers
                .map(|(name, value)| HTTPHeader { name: name.clone(), value: value.clone() })
                .collect();
            asked.http_get = Some(HTTPGetAction {
                path: Some(check.path.clone()),
                port: at,
                http_headers: (!headers.is_empty()).then_some(headers),
                ..HTTPGetAction::default()
            });
        }
        Check::Tcp(_) => asked.tcp_socket = Some(TCPSocketAction { host: None, port: at }),
        Check::Exec(check) => {
            asked.exec = Some(ExecAction { command: Some(check.command.clone()) });
        }
        Check::Grpc(check) => {
            let service = (!check.service.is_empty()).then(|| check.service.clone());
            asked.grpc = Some(GRPCAction { port, service, ..GRPCAction::default() });
        }
        // The model has no other kinds.
        _ => {}
    }
    asked
}

fn mounts(part: &Part<'_>) -> Vec<VolumeMount> {
    let mut mounts = Vec::new();
    let mount = |name: String, path: String| VolumeMount {
        name,
        mount_path: path,
        ..VolumeMount::default()
    };
    let (mut secrets, mut configs) = (false, false);
    for (place, wanted) in part.template.mounts.iter().enumerate() {
        let name = mount_name(place);
        match wanted {
            Mount::Secret(m) => match &m.target {
                None => secrets = true,
                Some(target) => mounts.push(VolumeMount {
                    sub_path: Some(m.name.to_string()),
                    read_only: Some(true),
                    ..mount(name, text(target))
                }),
            },
            Mount::Config(m) => match &m.target {
                None => configs = true,
                Some(target) => mounts.push(VolumeMount {
                    sub_path: Some(m.name.to_string()),
                    read_only: Some(true),
                    ..mount(name, text(target))
                }),
            },
            Mount::Volume(m) => {
                let own = part.template.volumes.get(&m.name) == Some(&VolumeScope::PerReplica);
                let name = if own { volume::own_name(&m.name) } else { name };
                let path = m.target.as_deref().map_or(format!("{VOLUMES_DIR}/{}", m.name), text);
                let read_only = m.read_only.then_some(true);
                mounts.push(VolumeMount { read_only, ..mount(name, path) });
            }
            Mount::Bind(m) => {
                let read_only = m.read_only.then_some(true);
                mounts.push(VolumeMount { read_only, ..mount(name, text(&m.target)) });
            }
            Mount::Tmpfs(m) => mounts.push(mount(name, text(&m.target))),
            _ => {}
        }
    }
    if secrets {
        mounts.push(VolumeMount {
            read_only: Some(true),
            ..mount(SECRETS.into(), SECRETS_DIR.into())
        });
    }
    if configs {
        mounts.push(VolumeMount {
            read_only: Some(true),
            ..mount(CONFIGS.into(), CONFIGS_DIR.into())
        });
    }
    mounts
}
