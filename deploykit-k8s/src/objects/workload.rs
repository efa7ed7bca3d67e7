//! What keeps the instances of a service: a Deployment, a StatefulSet or a DaemonSet.

use std::time::Duration;

use deploykit_core::Result;
use deploykit_core::model::{Autoscale, Replicas, Strategy, Update, VolumeScope};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec,
    DeploymentStrategy, RollingUpdateDaemonSet, RollingUpdateDeployment, StatefulSet,
    StatefulSetSpec, StatefulSetUpdateStrategy,
};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HorizontalPodAutoscaler, HorizontalPodAutoscalerSpec, MetricSpec,
    MetricTarget, ResourceMetricSource,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::container::whole_seconds;
use super::{Manifest, Part, pod, volume};

/// The objects that keep the instances of a service.
pub(super) fn workload(part: &Part<'_>) -> Result<Vec<Manifest>> {
    let Some(service) = part.target.app.services.get(part.name) else { return Ok(Vec::new()) };
    let own = part.template.volumes.values().any(|scope| *scope == VolumeScope::PerReplica);
    let (kind, object) = match service.replicas {
        Replicas::Global => ("DaemonSet", daemon_set(part, &service.update)?),
        _ if own => ("StatefulSet", stateful_set(part, service.replicas, &service.update)?),
        _ => ("Deployment", deployment(part, service.replicas, &service.update)?),
    };
    let mut manifests = vec![object];
    if let Replicas::Autoscale(bounds) = service.replicas {
        manifests.push(autoscaler(part, kind, bounds));
    }
    if part.template.placement.spread.is_some() {
        manifests.push(disruption_budget(part));
    }
    Ok(manifests)
}

fn selector(part: &Part<'_>) -> LabelSelector {
    LabelSelector { match_labels: Some(part.selector()), ..LabelSelector::default() }
}

/// How many there shall be; nothing where that is the autoscaler's to say.
fn replicas(replicas: Replicas) -> Option<i32> {
    match replicas {
        Replicas::Fixed(n) => Some(i32::try_from(n).unwrap_or(i32::MAX)),
        _ => None,
    }
}

fn number(n: u32) -> IntOrString {
    IntOrString::Int(i32::try_from(n).unwrap_or(i32::MAX))
}

/// How long a pod has to be ready to count: as long as it is monitored, and by how much later than
/// the app says Kubernetes may notice that it has become ill.
pub(crate) fn monitor(part: &Part<'_>, update: &Update) -> Option<i32> {
    let later = part.template.probes.readiness.as_ref().map(|probe| {
        let asked = probe.interval.max(Duration::from_secs(1));
        (asked - probe.interval.min(asked)) * probe.failure_threshold
    });
    let monitored = Some(update.monitor).filter(|time| !time.is_zero())?;
    Some(whole_seconds(monitored + later.unwrap_or_default()))
}

fn deployment(part: &Part<'_>, wanted: Replicas, update: &Update) -> Result<Manifest> {
    let (kind, rolling) = match &update.strategy {
        Strategy::Recreate => ("Recreate", None),
        Strategy::Rolling(rolling) => {
            let (surge, unavailable) = (number(rolling.surge), number(rolling.unavailable));
            let rolling = RollingUpdateDeployment {
                max_surge: Some(surge),
                max_unavailable: Some(unavailable),
            };
            ("RollingUpdate", Some(rolling))
        }
        // Those of another revision are kept by another Deployment.
        _ => ("RollingUpdate", None),
    };
    // The controller's own deadline has to be beyond the time that a pod is monitored.
    let monitored = monitor(part, update).unwrap_or(0);
    let deadline = whole_seconds(update.progress_deadline).saturating_add(monitored + 1);
    Ok(Manifest::of(&Deployment {
        metadata: part.metadata(part.deployment.clone()),
        spec: Into::into(DeploymentSpec {
            min_ready_seconds: monitor(part, update),
            progress_deadline_seconds: Some(deadline),
            replicas: replicas(wanted),
            // ReplicaSets keep the pods of earlier revisions alike, so that who can stay stays.
            revision_history_limit: i32::try_from(part.target.app.keep_revisions).ok(),
            selector: selector(part),
            strategy: Some(DeploymentStrategy {
                type_: Some(kind.into()),
                rolling_update: rolling,
            }),
            template: pod::template(part, "Always")?,
            ..DeploymentSpec::default()
        }),
        status: Default::default(),
    }))
}

fn stateful_set(part: &Part<'_>, wanted: Replicas, update: &Update) -> Result<Manifest> {
    let app = &part.target.app.name;
    let own = part.template.volumes.iter();
    let own = own.filter(|(_, scope)| **scope == VolumeScope::PerReplica);
    let claims = own.map(|(name, _)| volume::own_claim(part.config, app, name)).collect();
    Ok(Manifest::of(&StatefulSet {
        metadata: part.metadata(part.object_name()),
        spec: Into::into(StatefulSetSpec {
            min_ready_seconds: monitor(part, update),
            // A new revision that never gets ready must not keep another from taking its place.
            pod_management_policy: Some("Parallel".into()),
            replicas: replicas(wanted),
            selector: selector(part),
            service_name: Some(part.object_name()),
            template: pod::template(part, "Always")?,
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: None,
            }),
            volume_claim_templates: Some(claims),
            ..StatefulSetSpec::default()
        }),
        status: Default::default(),
    }))
}

fn daemon_set(part: &Part<'_>, update: &Update) -> Result<Manifest> {
    let rolling = match &update.strategy {
        // Either a pod more on a node or one fewer: the API takes no other way.
        Strategy::Rolling(rolling) if rolling.surge > 0 => RollingUpdateDaemonSet {
            max_surge: Some(number(rolling.surge)),
            max_unavailable: Some(number(0)),
        },
        Strategy::Rolling(rolling) => RollingUpdateDaemonSet {
            max_surge: None,
            max_unavailable: Some(number(rolling.unavailable.max(1))),
        },
        _ => RollingUpdateDaemonSet {
            max_surge: None,
            max_unavailable: Some(IntOrString::String("100%".into())),
        },
    };
    Ok(Manifest::of(&DaemonSet {
        metadata: part.metadata(part.object_name()),
        spec: Into::into(DaemonSetSpec {
            min_ready_seconds: monitor(part, update),
            selector: selector(part),
            template: pod::template(part, "Always")?,
            update_strategy: Some(DaemonSetUpdateStrategy {
                type_: Some("RollingUpdate".into()),
                rolling_update: Some(rolling),
            }),
            ..DaemonSetSpec::default()
        }),
        status: Default::default(),
    }))
}

fn autoscaler(part: &Part<'_>, kind: &str, bounds: Autoscale) -> Manifest {
    Manifest::of(&HorizontalPodAutoscaler {
        metadata: part.metadata(part.object_name()),
        spec: Into::into(HorizontalPodAutoscalerSpec {
            scale_target_ref: CrossVersionObjectReference {
                api_version: Some("apps/v1".into()),
                kind: kind.into(),
                name: if kind == "Deployment" {
                    part.deployment.clone()
                } else {
                    part.object_name()
                },
            },
            min_replicas: i32::try_from(bounds.min).ok(),
            max_replicas: i32::try_from(bounds.max).unwrap_or(i32::MAX),
            metrics: Some(vec![MetricSpec {
                type_: "Resource".into(),
                resource: Some(ResourceMetricSource {
                    name: "cpu".into(),
                    target: MetricTarget {
                        type_: "Utilization".into(),
                        average_utilization: Some(bounds.target_cpu.get().into()),
                        ..MetricTarget::default()
                    },
                }),
                ..MetricSpec::default()
            }]),
            ..HorizontalPodAutoscalerSpec::default()
        }),
        status: Default::default(),
    })
}

/// Who is spread shall not be drained away all at once.
fn disruption_budget(part: &Part<'_>) -> Manifest {
    Manifest::of(&PodDisruptionBudget {
        metadata: part.metadata(part.object_name()),
        spec: Into::into(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(selector(part)),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: Default::default(),
    })
}
