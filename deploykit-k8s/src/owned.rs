//! Whether an object says already all that a manifest does, by what the API server notes of who
//! applied which fields (<https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management>).

use kube::ResourceExt;
use kube::api::DynamicObject;
use serde_json::{Map, Value};

use crate::labels;
use crate::objects::Manifest;

/// What of an object no manager of fields holds.
const UNNOTED: [&str; 2] = ["apiVersion", "kind"];

/// Whether applying the manifest would change nothing. What it does not know for sure is a no.
pub(crate) fn is_applied(manifest: &Manifest, there: &DynamicObject) -> bool {
    let version = manifest.value["apiVersion"].as_str();
    let ours = there.managed_fields().iter().find(|entry| {
        entry.manager.as_deref() == Some(labels::MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
            && entry.api_version.as_deref() == version
    });
    let Some(fields) = ours.and_then(|entry| entry.fields_v1.as_ref()) else { return false };
    let Value::Object(mut wanted) = manifest.value.clone() else { return false };
    wanted.retain(|key, _| !UNNOTED.contains(&key.as_str()));
    if let Some(metadata) = wanted.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("name");
    }
    let mut now = there.data.clone();
    now["metadata"] = serde_json::json!({
        "labels": there.labels(), "annotations": there.annotations(),
    });
    holds(&fields.0, &Value::Object(wanted), &now)
}

/// Whether `fields` are exactly those of `wanted`, and what is there has them alike.
fn holds(fields: &Value, wanted: &Value, there: &Value) -> bool {
    let fields: Vec<(&String, &Value)> =
        fields.as_object().into_iter().flatten().filter(|(key, _)| *key != ".").collect();
    if fields.is_empty() {
        return says(there, wanted);
    }
    let count = match wanted {
        Value::Object(wanted) => wanted.len(),
        Value::Array(wanted) => wanted.len(),
        _ => return false,
    };
    let alike = |(key, fields): &(&String, &Value)| {
        part(key, wanted).zip(part(key, there)).is_some_and(|(w, t)| holds(fields, w, t))
    };
    count == fields.len() && fields.iter().all(alike)
}

/// Whether a value, or what is changed as a whole, is what was applied: had somebody else changed
/// it, it would not be noted as ours. What it says beyond that are defaults.
fn says(there: &Value, wanted: &Value) -> bool {
    match (there, wanted) {
        (Value::Object(there), Value::Object(wanted)) => {
            let said = |(key, wanted): (&String, &Value)| {
                there.get(key).is_some_and(|there| says(there, wanted))
            };
            wanted.iter().all(said)
        }
        (Value::Array(there), Value::Array(wanted)) => {
            let mut pairs = there.iter().zip(wanted);
            there.len() == wanted.len() && pairs.all(|(there, wanted)| says(there, wanted))
        }
        _ => there == wanted,
    }
}

/// The part of a value that a key of the API server's notes names: `f:` a field, `v:` an element by
/// its value, `k:` one by some of its fields.
fn part<'a>(key: &str, of: &'a Value) -> Option<&'a Value> {
    match key.split_once(':')? {
        ("f", name) => of.get(name),
        ("v", value) => {
            let value: Value = serde_json::from_str(value).ok()?;
            of.as_array()?.iter().find(|element| **element == value)
        }
        ("k", fields) => {
            let fields: Map<String, Value> = serde_json::from_str(fields).ok()?;
            let has = |element: &&Value| fields.iter().all(|(k, v)| element.get(k) == Some(v));
            of.as_array()?.iter().find(has)
        }
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use kube::core::ApiResource;
    use serde_json::json;

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            resource: ApiResource::erase::<k8s_openapi::api::apps::v1::Deployment>(&()),
            wide: false,
            name: "web".into(),
            value: json!({
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": { "name": "web", "labels": { "a": "b" } },
                "spec": {
                    "replicas": 2,
                    "selector": { "matchLabels": { "a": "b" } },
                    "volumes": [{ "name": "tmp", "emptyDir": {} }],
                    "args": ["x", "y"],
                    "finalizers": ["one"],
                },
            }),
        }
    }

    /// As the API server keeps it, with defaults and a field of somebody else.
    fn there() -> Value {
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "web",
                "labels": { "a": "b", "of": "others" },
                "managedFields": [
                    { "manager": "others", "operation": "Update", "apiVersion": "apps/v1" },
                    {
                        "manager": "deploykit",
                        "operation": "Apply",
                        "apiVersion": "apps/v1",
                        "fieldsType": "FieldsV1",
                        "fieldsV1": {
                            "f:metadata": { "f:labels": { "f:a": {} } },
                            "f:spec": {
                                "f:replicas": {},
                                "f:selector": {},
                                "f:volumes": { "k:{\"name\":\"tmp\"}": {
                                    ".": {}, "f:name": {}, "f:emptyDir": {},
                                } },
                                "f:args": {},
                                "f:finalizers": { "v:\"one\"": {} },
                            },
                        },
                    },
                ],
            },
            "spec": {
                "replicas": 2,
                "selector": { "matchLabels": { "a": "b" } },
                "volumes": [
                    { "name": "other", "emptyDir": {} },
                    { "name": "tmp", "emptyDir": {} },
                ],
                "args": ["x", "y"],
                "finalizers": ["two", "one"],
                "defaulted": true,
            },
        })
    }

    fn applied(change: impl Fn(&mut Value)) -> bool {
        let mut there = there();
        change(&mut there);
        is_applied(&manifest(), &serde_json::from_value(there).unwrap())
    }

    #[test]
    fn what_others_add_does_not_count() {
        assert!(applied(|_| {}));
        assert!(applied(|there| there["spec"]["more"] = json!(1)));
        assert!(applied(|there| there["spec"]["selector"]["defaulted"] = json!("v1")));
    }

    #[test]
    fn whatever_is_another_is_told() {
        assert!(!applied(|there| there["spec"]["replicas"] = json!(3)));
        assert!(!applied(|there| there["metadata"]["labels"]["a"] = json!("c")));
        assert!(!applied(|there| there["spec"]["volumes"][1]["name"] = json!("temporary")));
        assert!(!applied(|there| there["spec"]["selector"]["matchLabels"]["a"] = json!("c")));
        assert!(!applied(|there| there["spec"]["selector"] = json!({})));
        assert!(!applied(|there| there["spec"]["args"] = json!(["x"])));
        assert!(!applied(|there| there["spec"]["finalizers"] = json!(["two"])));
    }

    #[test]
    fn who_holds_the_fields_counts() {
        // Taken by somebody else, though the value is ours.
        let fields = |there: &mut Value| there["metadata"]["managedFields"][1]["fieldsV1"].take();
        assert!(!applied(|there| {
            let mut fields = fields(there);
            fields["f:spec"].as_object_mut().unwrap().remove("f:replicas");
            there["metadata"]["managedFields"][1]["fieldsV1"] = fields;
        }));
        // Ours, though the manifest has it no more: applying would take it away.
        assert!(!applied(|there| {
            let mut fields = fields(there);
            fields["f:spec"]["f:defaulted"] = json!({});
            there["metadata"]["managedFields"][1]["fieldsV1"] = fields;
        }));
        assert!(!applied(|there| {
            there["metadata"]["managedFields"][1]["apiVersion"] = json!("apps/v1beta1");
        }));
    }
}
