//! `image-reference`: the functions of `distribution/reference`.

use deploykit_oci::{Digest, Reference};
use serde_json::{Value, json};

use super::{expect_equal, text};

pub(super) fn check(case: &Value) -> Result<(), String> {
    let input = text(case, "input")?;
    let parsed = match text(case, "kind")? {
        "Parse" => Reference::parse(input).map(facts),
        "ParseNormalizedNamed" => Reference::parse_normalized(input).map(facts),
        "ParseDockerRef" => Reference::parse_normalized(input).map(|r| facts(r.pinned())),
        "ParseAnyReference" => match digest(input) {
            Some(digest) => Ok(json!({ "string": digest, "digest": digest })),
            None => Reference::parse_normalized(input).map(facts),
        },
        // Only the name as it is meant to be written.
        "ParseNamed" => match Reference::parse_normalized(input).map(facts) {
            Ok(facts) if facts["string"] != input => return expect_rejected(case),
            parsed => parsed,
        },
        "WithName" => match Reference::parse(input) {
            Ok(reference) if reference.tag().is_some() || reference.digest().is_some() => {
                return expect_rejected(case);
            }
            parsed => parsed.map(facts),
        },
        other => return Err(format!("the function {other} is not known")),
    };
    let Ok(facts) = parsed else { return expect_rejected(case) };
    if !case["error"].is_null() {
        return Err(format!("should be rejected: {}", case["error"]));
    }
    for field in ["domain", "path", "tag", "digest", "familiar", "string"] {
        expect_equal(field, &case[field], &facts[field])?;
    }
    Ok(())
}

fn expect_rejected(case: &Value) -> Result<(), String> {
    if case["error"].is_null() { Err("should be accepted".to_owned()) } else { Ok(()) }
}

fn facts(reference: Reference) -> Value {
    json!({
        "domain": reference.domain(),
        "path": reference.path(),
        "tag": reference.tag(),
        "digest": reference.digest(),
        "familiar": reference.familiar(),
        "string": reference.to_string(),
    })
}

/// An image's id, or a digest by itself.
fn digest(input: &str) -> Option<Digest> {
    input.parse().or_else(|_| format!("sha256:{input}").parse()).ok()
}
