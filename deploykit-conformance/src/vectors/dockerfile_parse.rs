//! `dockerfile-parse`: BuildKit's parser.

use deploykit_oci::Dockerfile;
use serde_json::Value;

use super::text;

pub(super) fn check(case: &Value) -> Result<(), String> {
    match (Dockerfile::parse(text(case, "input")?), case["error"].as_str()) {
        (Ok(_), None) | (Err(_), Some(_)) => Ok(()),
        (Ok(_), Some(error)) => Err(format!("should be rejected: {error}")),
        (Err(error), None) => Err(format!("rejected: {error}")),
    }
}
