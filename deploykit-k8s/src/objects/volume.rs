//! Volumes.

use std::collections::BTreeMap;

use deploykit_core::model::{AppName, VolumeName};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::Manifest;
use crate::config::K8sConfig;
use crate::labels;

const SIZE: &str = "1Gi";

/// The name of the claim of a shared volume.
pub(super) fn claim_name(app: &AppName, volume: &VolumeName) -> String {
    labels::object_name(&[app.as_str(), volume.as_str()])
}

/// What a volume of a replica's own is called within the pod, and its claim begins with.
pub(super) fn own_name(volume: &VolumeName) -> String {
    format!("own-{volume}")
}

fn labels_of(app: &AppName, volume: &VolumeName) -> BTreeMap<String, String> {
    let mut labels = labels::of_app(app);
    labels.insert(labels::VOLUME.to_owned(), volume.to_string());
    labels
}

fn spec(config: &K8sConfig) -> PersistentVolumeClaimSpec {
    let size = config.volume_size.clone().unwrap_or_else(|| SIZE.to_owned());
    let requests = BTreeMap::from([("storage".to_owned(), Quantity(size))]);
    PersistentVolumeClaimSpec {
        access_modes: Some(vec!["ReadWriteOnce".into()]),
        resources: Some(VolumeResourceRequirements { requests: Some(requests), limits: None }),
        storage_class_name: config.storage_class.clone(),
        ..PersistentVolumeClaimSpec::default()
    }
}

/// The claim of a shared volume.
pub(crate) fn claim(config: &K8sConfig, app: &AppName, volume: &VolumeName) -> Manifest {
    Manifest::of(&PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(app, volume)),
            labels: Some(labels_of(app, volume)),
            ..ObjectMeta::default()
        },
        spec: Some(spec(config)),
        status: Default::default(),
    })
}

/// What a StatefulSet makes the claim of each replica from.
pub(super) fn own_claim(
    config: &K8sConfig,
    app: &AppName,
    volume: &VolumeName,
) -> PersistentVolumeClaim {
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(own_name(volume)),
            labels: Some(labels_of(app, volume)),
            ..ObjectMeta::default()
        },
        spec: Some(spec(config)),
        status: Default::default(),
    }
}
