//! What differs between the objects of an app and ours, though its instances do not: told by what
//! the API server would make of ours
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run>).

use std::collections::BTreeMap;

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{Drift, Error, ErrorKind, ResolvedApp, Result};
use futures_util::future::try_join_all;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{ConfigMap, PodTemplateSpec, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::{Ingress, NetworkPolicy};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::config::K8sConfig;
use crate::execute::{give_signal, make_alike};
use crate::images::Images;
use crate::objects::{self, Manifest, Part};
use crate::raw::Inventory;
use crate::state::State;
use crate::{labels, owned};

/// How many objects are asked about at once.
const AT_ONCE: usize = 8;
/// How many fields of an object are named.
const NAMED: usize = 3;

/// The objects of an app that are there, by kind and name.
type Live = BTreeMap<(String, String), DynamicObject>;

/// See [`Orchestrator::drift`](deploykit_core::Orchestrator::drift).
pub(crate) async fn drift(
    cluster: &Cluster,
    config: &K8sConfig,
    images: &Images,
    target: &ResolvedApp,
    services: &[ServiceName],
) -> Result<Drift> {
    let raw = raw(cluster, target).await?;
    if services.is_empty() {
        return Ok(Drift { raw, ..Drift::default() });
    }
    let live = live(cluster, &target.app.name).await?;
    let mut looks = Vec::new();
    for name in services {
        for manifest in manifests(config, images, target, name, &live).await? {
            let there = live.get(&(manifest.resource.kind.clone(), manifest.name.clone()));
            looks.push(
                async move { Ok::<_, Error>((name, look(cluster, &manifest, there).await?)) },
            );
        }
    }
    let said: Vec<_> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
    let mut differing: BTreeMap<ServiceName, Vec<String>> = BTreeMap::new();
    for (name, said) in said {
        if let Some(said) = said {
            differing.entry(name.clone()).or_default().push(said);
        }
    }
    Ok(Drift { services: differing, raw })
}

/// What differs of raw objects.
async fn raw(cluster: &Cluster, target: &ResolvedApp) -> Result<Vec<String>> {
    let manifests = objects::raw(&target.app);
    if manifests.is_empty() {
        return Ok(Vec::new());
    }
    let inventory = Inventory::read(&State(cluster.clone()), &target.app.name).await?;
    // Of a kind that is not known there is nothing, which is told already.
    let known = manifests.into_iter().filter_map(|manifest| inventory.resolve(cluster, manifest));
    let looks = known.map(|manifest| async move {
        let there = cluster.found(&manifest).await?;
        look(cluster, &manifest, there.as_ref()).await
    });
    let looks: Vec<_> = looks.collect();
    let said: Vec<Option<String>> = stream::iter(looks).buffered(AT_ONCE).try_collect().await?;
    Ok(said.into_iter().flatten().collect())
}

async fn live(cluster: &Cluster, app: &AppName) -> Result<Live> {
    let kinds = [
        ApiResource::erase::<ConfigMap>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<StatefulSet>(&()),
        ApiResource::erase::<DaemonSet>(&()),
        ApiResource::erase::<HorizontalPodAutoscaler>(&()),
        ApiResource::erase::<PodDisruptionBudget>(&()),
        ApiResource::erase::<Ingress>(&()),
        ApiResource::erase::<NetworkPolicy>(&()),
    ];
    let selector = format!("{}={app}", labels::APP);
    let lists = kinds.iter().map(|kind| cluster.list_of(kind, &selector));
    let found = try_join_all(lists).await?;
    let named = kinds.iter().zip(found).flat_map(|(kind, objects)| {
        objects.into_iter().map(|object| ((kind.kind.clone(), object.name_any()), object))
    });
    Ok(named.collect())
}

/// The objects of a service, as they were applied for the pods that are there.
async fn manifests(
    config: &K8sConfig,
    images: &Images,
    target: &ResolvedApp,
    name: &ServiceName,
    live: &Live,
) -> Result<Vec<Manifest>> {
    let mut part = Part::new(config, target, name, 0)?;
    for ((kind, object), there) in live {
        if there.labels().get(labels::SERVICE).map(String::as_str) != Some(name.as_str()) {
            continue;
        }
        let template = there.data["spec"]["template"].clone();
        let template: Option<PodTemplateSpec> = serde_json::from_value(template).ok();
        let alike = template.is_some_and(|template| make_alike(&mut part, &template));
        if alike && kind == "Deployment" {
            part.deployment = object.clone();
        }
    }
    give_signal(&mut part, images).await?;
    objects::service(&part)
}

/// What differs between an object that is there and ours; nothing where nothing does.
async fn look(
    cluster: &Cluster,
    manifest: &Manifest,
    there: Option<&DynamicObject>,
) -> Result<Option<String>> {
    let object = format!("{} {}", manifest.resource.kind, manifest.name);
    let mut there = there.cloned();
    // What was listed may have been changed before the answer.
    let mut again = true;
    loop {
        let Some(now) = &there else { return Ok(Some(format!("drift: {object} is missing"))) };
        let mut manifest = manifest.clone();
        if let Some(revision) = now.labels().get(labels::REVISION) {
            // Of the app's last change, which need not have been one of this object.
            manifest.value["metadata"]["labels"][labels::REVISION] = revision.as_str().into();
        }
        if objects::is_replaced(&manifest, now) {
            return Ok(Some(format!("differs: {object} in spec.clusterIP")));
        }
        if owned::is_applied(&manifest, now) {
            return Ok(None);
        }
        let would_be = match cluster.would_apply(&manifest).await {
            Ok(would_be) => would_be,
            Err(refused) if refused.kind() == ErrorKind::Conflict => {
                return Ok(Some(format!("drift: {object}: {}", refused.message())));
            }
            // Of an admission webhook that has effects beside its answer.
            Err(refused) if refused.message().contains("does not support dry run") => {
                tracing::warn!(%object, %refused, "it is not known whether it was changed");
                return Ok(None);
            }
            Err(refused) => return Err(refused),
        };
        let mut fields = Vec::new();
        differences(&fields_of(now), &fields_of(&would_be), String::new(), &mut fields);
        if fields.is_empty() {
            return Ok(None);
        }
        if !again {
            let more = fields.len().saturating_sub(NAMED);
            fields.truncate(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            return Ok(Some(format!("differs: {object} in {}{more}", fields.join(", "))));
        }
        again = false;
        there = cluster.found(&manifest).await?;
    }
}

/// What an object says, without what the API server notes of it.
fn fields_of(object: &DynamicObject) -> Value {
    let mut fields = object.data.clone();
    if let Some(fields) = fields.as_object_mut() {
        fields.remove("status");
        let metadata = json!({ "labels": object.labels(), "annotations": object.annotations() });
        fields.insert("metadata".into(), metadata);
    }
    fields
}

/// The paths of the fields in which two objects differ.
fn differences(there: &Value, would_be: &Value, path: String, found: &mut Vec<String>) {
    match (there, would_be) {
        (Value::Object(there), Value::Object(would_be)) => {
            let keys: std::collections::BTreeSet<&String> =
                there.keys().chain(would_be.keys()).collect();
            for key in keys {
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                let (there, would_be) = (of(there), of(would_be));
                differences(&there.unwrap_or_default(), &would_be.unwrap_or_default(), at, found);
            }
        }
        (Value::Array(there), Value::Array(would_be)) if there.len() == would_be.len() => {
            for (number, (there, would_be)) in there.iter().zip(would_be).enumerate() {
                differences(there, would_be, format!("{path}[{number}]"), found);
            }
        }
        (there, would_be) if there != would_be => found.push(path),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_each_field_is_told() {
        let there = json!({ "spec": { "a": [{ "image": "x" }, 1], "b": [1], "c": 1, "d": null } });
        let would_be = json!({ "spec": { "a": [{ "image": "y" }, 1], "b": [1, 2], "e": 2 } });
        let mut found = Vec::new();
        differences(&there, &would_be, String::new(), &mut found);
        assert_eq!(found, ["spec.a[0].image", "spec.b", "spec.c", "spec.e"]);
    }
}
