//! The pods of a service or job.

use std::collections::BTreeMap;

use deploykit_core::model::{ImageSpec, Mount, VolumeScope};
use deploykit_core::{ErrorKind, Result};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath,
    LocalObjectReference, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec,
    PodTemplateSpec, ProjectedVolumeSource, SeccompProfile, SecretProjection,
    TopologySpreadConstraint, Volume, VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::{Part, VALUE, config_object, container, secret_object, volume};
use crate::error::error;
use crate::labels;

/// Who instances run as where the app does not say: nobody in particular.
pub(crate) const NOBODY: i64 = 65532;
/// Files that the instance's group alone may read.
const READABLE_BY_GROUP: i32 = 0o440;

/// The user and the group that instances run as, where that is for us to say.
fn user(part: &Part<'_>) -> Result<(Option<i64>, i64)> {
    let Some(text) = &part.template.user else {
        let own = part.builds_image().then_some(NOBODY);
        return Ok((own, NOBODY));
    };
    match numbers(text) {
        Some((user, group)) => Ok((Some(user), group)),
        None => {
            let message = format!("`{text}` is no user by number; write it like 1000 or 1000:1000");
            Err(error(ErrorKind::Invalid, "make the objects", message).with("service", part.name))
        }
    }
}

/// A user and a group by their numbers; the group may be left out.
pub(crate) fn numbers(text: &str) -> Option<(i64, i64)> {
    let (user, group) = text.split_once(':').unwrap_or((text, text));
    let number = |text: &str| text.parse::<i64>().ok().filter(|id| *id >= 0);
    Some((number(user)?, number(group)?))
}

impl Part<'_> {
    /// Whether its image is made by us of an executable.
    fn builds_image(&self) -> bool {
        let workload = self.target.app.workload(self.name);
        workload.is_some_and(|w| matches!(w.image, ImageSpec::Binary(_)))
    }

    /// Whether its image lies in our repository.
    pub(crate) fn pushes_image(&self) -> bool {
        let workload = self.target.app.workload(self.name);
        workload.is_some_and(|w| !matches!(w.image, ImageSpec::Reference(_)))
    }
}

/// The template of the pods, which pass the level `restricted` of
/// [Pod Security](https://kubernetes.io/docs/concepts/security/pod-security-standards/).
pub(super) fn template(part: &Part<'_>, restart: &str) -> Result<PodTemplateSpec> {
    let app = &part.target.app.name;
    let mut pod_labels = labels::of_service(app, part.name);
    pod_labels.insert(labels::REVISION.to_owned(), part.revision.to_string());
    let reached = part.template.reaches.iter().flatten();
    pod_labels.extend(reached.map(|name| (labels::reaches(name), "true".to_owned())));
    let mut annotations: BTreeMap<String, String> = part.template.labels.clone();
    annotations.insert(labels::HASH.to_owned(), part.hash.to_string());
    let (user, group) = user(part)?;
    let pull_secrets = &part.config.pull_secrets;
    let account = part.template.service_account;
    let account_name = account.map(|_| part.object_name());
    let spec = PodSpec {
        automount_service_account_token: Some(account.is_some_and(|account| account.token)),
        containers: vec![container::container(part)],
        // Names of other services come from the environment contract alone.
        enable_service_links: Some(false),
        image_pull_secrets: (!pull_secrets.is_empty()).then(|| {
            pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()
        }),
        node_selector: (!part.template.placement.constraints.is_empty())
            .then(|| part.template.placement.constraints.clone()),
        restart_policy: Some(restart.to_owned()),
        security_context: Some(PodSecurityContext {
            fs_group: Some(group),
            run_as_group: user.map(|_| group),
            run_as_non_root: Some(user != Some(0)),
            run_as_user: user,
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".into(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        // Under its old name too, which the API server gives the same value, and which would stay
        // where that were not ours to take away.
        service_account: account_name.clone(),
        service_account_name: account_name,
        termination_grace_period_seconds: Some(container::grace_seconds(part)),
        topology_spread_constraints: spread(part),
        volumes: Some(volumes(part)).filter(|volumes| !volumes.is_empty()),
        ..PodSpec::default()
    };
    Ok(PodTemplateSpec {
        metadata: Some(ObjectMeta {
            labels: Some(pod_labels),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        }),
        spec: Some(spec),
    })
}

fn spread(part: &Part<'_>) -> Option<Vec<TopologySpreadConstraint>> {
    let key = part.template.placement.spread.clone()?;
    Some(vec![TopologySpreadConstraint {
        label_selector: Some(LabelSelector {
            match_labels: Some(part.selector()),
            ..LabelSelector::default()
        }),
        max_skew: 1,
        topology_key: key,
        when_unsatisfiable: "ScheduleAnyway".into(),
        ..TopologySpreadConstraint::default()
    }])
}

/// What a mount is called within the pod; the place of the mount makes it unique.
pub(super) fn mount_name(place: usize) -> String {
    format!("mount-{place}")
}

/// The volume of all secrets, and of all configs, at their standard places.
pub(super) const SECRETS: &str = "secrets";
pub(super) const CONFIGS: &str = "configs";

fn item(path: &str, mode: Option<i32>) -> Option<Vec<KeyToPath>> {
    Some(vec![KeyToPath { key: VALUE.into(), mode, path: path.into(), ..KeyToPath::default() }])
}

fn secret_projection(
    part: &Part<'_>,
    name: &deploykit_core::model::SecretName,
) -> VolumeProjection {
    let version = part.template.secrets.get(name).copied().unwrap_or_default();
    VolumeProjection {
        secret: Some(SecretProjection {
            items: item(name.as_str(), Some(READABLE_BY_GROUP)),
            name: secret_object(&part.target.app.name, name, version),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

fn config_projection(
    part: &Part<'_>,
    name: &deploykit_core::model::ConfigName,
) -> VolumeProjection {
    let content = part.template.configs.get(name).map(String::as_str).unwrap_or_default();
    VolumeProjection {
        config_map: Some(ConfigMapProjection {
            items: item(name.as_str(), None),
            name: config_object(part.target, name, content),
            optional: None,
        }),
        ..VolumeProjection::default()
    }
}

fn projected(name: String, sources: Vec<VolumeProjection>) -> Volume {
    let projected = ProjectedVolumeSource { sources: Some(sources), ..Default::default() };
    Volume { name, projected: Some(projected), ..Volume::default() }
}

fn volumes(part: &Part<'_>) -> Vec<Volume> {
    let mut volumes = Vec::new();
    let (mut secrets, mut configs) = (Vec::new(), Vec::new());
    for (place, mount) in part.template.mounts.iter().enumerate() {
        let name = mount_name(place);
        match mount {
            Mount::Secret(m) if m.target.is_none() => {
                secrets.push(secret_projection(part, &m.name))
            }
            Mount::Config(m) if m.target.is_none() => {
                configs.push(config_projection(part, &m.name))
            }
            Mount::Secret(m) => {
                volumes.push(projected(name, vec![secret_projection(part, &m.name)]));
            }
            Mount::Config(m) => {
                volumes.push(projected(name, vec![config_projection(part, &m.name)]));
            }
            // Those of a replica's own are the StatefulSet's to make.
            Mount::Volume(m) if part.template.volumes[&m.name] == VolumeScope::PerReplica => {}
            Mount::Volume(m) => volumes.push(Volume {
                name,
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: volume::claim_name(&part.target.app.name, &m.name),
                    read_only: m.read_only.then_some(true),
                }),
                ..Volume::default()
            }),
            Mount::Tmpfs(m) => volumes.push(Volume {
                name,
                empty_dir: Some(EmptyDirVolumeSource {
                    medium: Some("Memory".into()),
                    size_limit: m.size.map(|size| Quantity(size.get().to_string())),
                    ..EmptyDirVolumeSource::default()
                }),
                ..Volume::default()
            }),
            Mount::Bind(m) => volumes.push(Volume {
                name,
                host_path: Some(HostPathVolumeSource {
                    path: m.source.to_string_lossy().into_owned(),
                    type_: None,
                }),
                ..Volume::default()
            }),
            _ => {}
        }
    }
    if !secrets.is_empty() {
        volumes.push(projected(SECRETS.into(), secrets));
    }
    if !configs.is_empty() {
        volumes.push(projected(CONFIGS.into(), configs));
    }
    volumes
}
