//! `curator-service-instance`: the instances of Apache Curator's service discovery.

use deploykit_registry::curator::ServiceInstance;
use serde_json::{Value, json};

use super::{expect_equal, text};

pub(super) fn check(case: &Value) -> Result<(), String> {
    let document = text(case, "json")?;
    let rejected = case.get("error").is_some_and(|error| !error.is_null());
    let instance = match (serde_json::from_str::<ServiceInstance>(document), rejected) {
        (Ok(instance), false) => instance,
        (Err(_), true) => return Ok(()),
        (Ok(found), true) => return Err(format!("should be rejected, found {found:?}")),
        (Err(error), false) => return Err(error.to_string()),
    };
    let expected = &case["expect"];
    let mut found = json!({
        "name": instance.name,
        "id": instance.id,
        "address": instance.address,
        "port": instance.port,
        "sslPort": instance.ssl_port,
        "payload": instance.plain_payload(),
        "registrationTimeUTC": instance.registration_time_utc,
        "serviceType": instance.service_type,
        "enabled": instance.enabled,
    });
    if let (Some(spec), Some(uri)) = (&instance.uri_spec, instance.uri()) {
        found["uriSpecParts"] = json!(spec.parts);
        found["builtUri"] = uri.into();
    }
    expect_equal("instance", expected, &found)?;
    // What is written again says the same of each field that was there, and no more than is known.
    let original: Value = serde_json::from_str(document).map_err(|error| error.to_string())?;
    let written = json!(instance);
    for (field, value) in written.as_object().into_iter().flatten() {
        let default = if field == "enabled" { true.into() } else { Value::Null };
        expect_equal(field, original.get(field).unwrap_or(&default), value)?;
    }
    let again: ServiceInstance =
        serde_json::from_value(written).map_err(|error| error.to_string())?;
    match again == instance {
        true => Ok(()),
        false => Err(format!("written and read again it is {again:?}")),
    }
}
