//! `oci-image-spec`: the schemas of `opencontainers/image-spec`.

use deploykit_oci::spec::validate;
use serde_json::Value;

use super::text;

pub(super) fn check(case: &Value) -> Result<(), String> {
    let verdict = validate(text(case, "media_type")?, text(case, "json")?.as_bytes());
    match (verdict, case["valid"].as_bool()) {
        (Ok(()), Some(true)) | (Err(_), Some(false)) => Ok(()),
        (Ok(()), _) => Err("should be invalid".to_owned()),
        (Err(problems), _) => Err(format!("found invalid: {problems:?}")),
    }
}
