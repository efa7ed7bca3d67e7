//! `dockerignore-match`: the functions of `moby/patternmatcher`.

use deploykit_oci::DockerIgnore;
use serde_json::Value;

use super::{expect_equal, text};

pub(super) fn check(case: &Value) -> Result<(), String> {
    let patterns = case["patterns"].as_array().ok_or("no patterns")?;
    let patterns: Vec<&str> = patterns.iter().filter_map(Value::as_str).collect();
    let path = match text(case, "kind")? {
        "Matches" if text(case, "path")? == "." => "",
        _ => text(case, "path")?,
    };
    match DockerIgnore::from_patterns(&patterns) {
        Ok(ignore) if case["error"].is_null() => {
            expect_equal("result", &case["result"], &Value::Bool(ignore.excludes(path)))
        }
        Ok(_) => Err(format!("should be rejected: {}", case["error"])),
        Err(problems) if case["error"].is_null() => Err(format!("rejected: {problems:?}")),
        Err(_) => Ok(()),
    }
}
