//! Whole Compose projects, recorded from `compose-go`.

use std::fs;
use std::path::{Path, PathBuf};

use deploykit_compose::{ComposeFile, LoadOptions, Node, Value as Yaml, from_yaml, load};
use serde_json::Value;

use super::{Check, Kind};

/// Loading a project. A case is a folder with `case.json`, the files, and what they come to.
pub(super) const LOAD: Kind = Kind {
    name: "compose-load",
    path: "compose-cases",
    check: Check::Folder(project),
    left_out: &[],
};

fn project(folder: &Path) -> Result<(), String> {
    let folder = folder.canonicalize().map_err(|e| e.to_string())?;
    let corpus = folder.parent().and_then(Path::parent).unwrap_or(&folder).join("corpus");
    let read = |path: &Path| {
        let text = fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok::<_, String>(text.replace("/corpus", &corpus.to_string_lossy()))
    };
    let case: Value =
        serde_json::from_str(&read(&folder.join("case.json"))?).map_err(|e| e.to_string())?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let texts =
        |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let given = &case["options"];
    let mut options = LoadOptions::new([], text(&case["working_dir"]));
    options.folder = PathBuf::from(text(&case["cwd"]));
    options.environment = serde_json::from_value(case["env"].clone()).map_err(|e| e.to_string())?;
    options.project_name = given["project_name"].as_str().map(str::to_owned);
    options.profiles = texts(&given["profiles"]);
    options.services = texts(&given["selected_services"]);
    options.resolve_paths = given["resolve_paths"] == true;
    options.normalize = given["skip_normalization"] != true;
    options.check_consistency = given["skip_consistency_check"] != true;
    for name in texts(&case["files"]) {
        let own = folder.join(&name);
        let text = if own.is_file() && !name.starts_with('/') { Some(read(&own)?) } else { None };
        options.files.push(ComposeFile { path: name.into(), text });
    }
    let accepted = case["expect"] == "accept";
    let expected = folder.join("expected.yaml");
    match load(&options) {
        Err(_) if !accepted => Ok(()),
        Err(error) => Err(format!("is right, but was rejected: {error}")),
        Ok(project) if !accepted => {
            Err(format!("is wrong, but was accepted:\n{}", project.to_yaml()))
        }
        Ok(_) if !expected.is_file() => Ok(()),
        Ok(project) => {
            let expected = from_yaml(&read(&expected)?).map_err(|e| e.to_string())?;
            match difference(project.root(), &expected, "") {
                None => Ok(()),
                Some(difference) => Err(difference),
            }
        }
    }
}

/// The first place where two trees differ; numbers are compared as numbers.
fn difference(came: &Node, expected: &Node, path: &str) -> Option<String> {
    let differ = || Some(format!("{path}: expected {:?}, came {:?}", expected.value, came.value));
    match (&came.value, &expected.value) {
        (Yaml::Map(a), Yaml::Map(b)) => {
            let missing = b.keys().find(|key| !a.contains_key(*key));
            let extra = a.keys().find(|key| !b.contains_key(*key));
            if let Some(key) = missing.or(extra) {
                let side = if missing.is_some() { "missing" } else { "too much" };
                return Some(format!("{path}.{key} is {side}"));
            }
            a.iter().find_map(|(key, entry)| {
                difference(&entry.node, &b.get(key)?.node, &format!("{path}.{key}"))
            })
        }
        (Yaml::List(a), Yaml::List(b)) if a.len() == b.len() => {
            a.iter().zip(b).find_map(|(a, b)| difference(a, b, &format!("{path}[]")))
        }
        (Yaml::Float(a), Yaml::Int(b)) if *a == *b as f64 => None,
        (a, b) if a == b => None,
        _ => differ(),
    }
}
