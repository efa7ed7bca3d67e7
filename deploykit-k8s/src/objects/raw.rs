//! Raw objects: manifests that an app carries for Kubernetes.

use std::collections::BTreeMap;

use deploykit_core::model::{App, RawName};
use deploykit_core::{Problem, SpecHash};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Map, Value};

use super::Manifest;
use crate::error::BACKEND;
use crate::labels;

/// The kind of an object, whatever the version.
pub(crate) type GroupKind = (String, String);

type Object = Map<String, Value>;

fn objects(app: &App) -> impl Iterator<Item = (&RawName, &Object)> {
    app.raw.get(BACKEND).into_iter().flatten()
}

fn text<'a>(object: &'a Object, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn gvk(object: &Object) -> GroupVersionKind {
    let (group, version) =
        text(object, "apiVersion").split_once('/').unwrap_or(("", text(object, "apiVersion")));
    GroupVersionKind::gvk(group, version, text(object, "kind"))
}

/// The raw objects of an app, those that define kinds first. The plurals of their kinds are
/// guessed, and none is known to be of the whole cluster.
pub(crate) fn raw(app: &App) -> Vec<Manifest> {
    let mut manifests: Vec<Manifest> =
        objects(app).map(|(name, object)| manifest(app, name, object)).collect();
    manifests.sort_by_key(|manifest| defines(manifest).is_none());
    manifests
}

fn manifest(app: &App, name: &RawName, object: &Object) -> Manifest {
    let mut value = object.clone();
    let mut metadata = taken(&mut value, "metadata");
    let own = text(&metadata, "name").to_owned();
    let mut owner = labels::of_app(&app.name);
    owner.insert(labels::ROLE.into(), labels::MANIFEST.into());
    owner.insert(labels::RAW.into(), name.to_string());
    let mut labels_of_both = taken(&mut metadata, "labels");
    labels_of_both.extend(owner.into_iter().map(|(label, text)| (label, text.into())));
    let mut annotations = taken(&mut metadata, "annotations");
    annotations.insert(labels::HASH.into(), SpecHash::of_raw(object).to_string().into());
    metadata.insert("labels".into(), labels_of_both.into());
    metadata.insert("annotations".into(), annotations.into());
    value.insert("metadata".into(), metadata.into());
    let resource = ApiResource::from_gvk(&gvk(object));
    Manifest { resource, wide: false, name: own, value: Value::Object(value) }
}

/// A mapping taken out of another; an empty one where there is none.
fn taken(object: &mut Object, field: &str) -> Object {
    match object.remove(field) {
        Some(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// The kind that an object defines, where it is a
/// [definition](https://kubernetes.io/docs/concepts/extend-kubernetes/api-extension/custom-resources/).
pub(crate) fn defines(manifest: &Manifest) -> Option<GroupKind> {
    let resource = &manifest.resource;
    let is_definition =
        resource.group == "apiextensions.k8s.io" && resource.kind == "CustomResourceDefinition";
    let spec = &manifest.value["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    is_definition.then(|| (text(&spec["group"]), text(&spec["names"]["kind"])))
}

/// What keeps raw objects from being applied.
pub(crate) fn raw_problems(app: &App) -> Vec<Problem> {
    let empty = Map::new();
    let mut problems = Vec::new();
    let mut taken: BTreeMap<(GroupKind, &str), &RawName> = BTreeMap::new();
    for (name, object) in objects(app) {
        let path = format!("raw.{BACKEND}.{name}");
        let mut add = |field: &str, what: &str, fix: &str| {
            problems.push(Problem::new(format!("{path}{field}"), what, fix));
        };
        if text(object, "apiVersion").is_empty() {
            add(".apiVersion", "`apiVersion` is missing, or no text", "write it, like v1");
        }
        let kind = text(object, "kind");
        if kind.is_empty() {
            add(".kind", "`kind` is missing, or no text", "write it, like ConfigMap");
        } else if object.contains_key("items") {
            add(".items", "this is a list of objects", "give each a name of its own");
        }
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        let own = text(metadata, "name");
        if own.is_empty() || own.contains(['/', '%']) {
            add(".metadata.name", "`metadata.name` is missing, or no name", "write one");
        }
        if metadata.contains_key("namespace") {
            let what = "objects are put into the namespace of the backend";
            add(".metadata.namespace", what, "leave it out");
        }
        for field in ["labels", "annotations"] {
            let fits = |value: &Value| {
                value.as_object().is_some_and(|map| map.values().all(Value::is_string))
            };
            if metadata.get(field).is_some_and(|value| !fits(value)) {
                add(&format!(".metadata.{field}"), "it is no mapping of texts", "quote its values");
            }
        }
        let GroupVersionKind { group, kind, .. } = gvk(object);
        if group.is_empty() && kind == "Secret" {
            let what = "the value of a Secret would be kept with the plan and each revision";
            add("", what, "use `secrets`, or make the Secret by other means");
        }
        if let Some(first) = taken.get(&((group.clone(), kind.clone()), own)) {
            let what = format!("`{first}` is the same object");
            add("", &what, "keep one");
        } else {
            taken.insert(((group, kind), own), name);
        }
    }
    problems
}
