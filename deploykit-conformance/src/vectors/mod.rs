//! Cases recorded from reference implementations, and the check of each kind of them.
//!
//! The program `vectors` runs one kind over a file or folder of cases.

mod compose;
mod compose_load;
mod curator;
mod dockerfile_parse;
mod dockerignore_match;
mod image_reference;
mod k8s_names;
mod k8s_quantity;
mod k8s_rollout;
mod oci_image_spec;

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::Value;

/// One kind of recorded cases.
pub struct Kind {
    /// Its name, like `image-reference`.
    pub name: &'static str,
    /// Where its cases lie in the folder of all open cases.
    pub path: &'static str,
    /// How one case is checked.
    pub check: Check,
    /// Tests of the reference implementation whose cases ask for what is not offered here; they
    /// are left out, and not counted.
    pub left_out: &'static [&'static str],
}

/// How one case is checked: `Err` says what was expected and what came.
pub enum Check {
    /// A case is one line of a file, a JSON object.
    Line(fn(&Value) -> Result<(), String>),
    /// A case is a folder.
    Folder(fn(&Path) -> Result<(), String>),
}

/// What became of one case.
pub struct Outcome {
    /// The case's name: its field `id`, its folder's name, or the number of its line.
    pub id: String,
    /// What was expected and what came, where it failed.
    pub result: Result<(), String>,
}

/// Every kind that is checked here.
pub const KINDS: &[Kind] = &[
    lines("curator-service-instance", "curator-service-instance.jsonl", curator::check),
    lines("dockerfile-parse", "dockerfile-parse.jsonl", dockerfile_parse::check),
    lines("dockerignore-match", "dockerignore-match.jsonl", dockerignore_match::check),
    lines("image-reference", "image-reference.jsonl", image_reference::check),
    lines("k8s-names", "k8s-names.jsonl", k8s_names::check),
    lines("k8s-quantity", "k8s-quantity.jsonl", k8s_quantity::check),
    lines("k8s-rollout-status-tables", "k8s-rollout-status-tables.jsonl", k8s_rollout::check),
    lines("oci-image-spec", "oci-image-spec.jsonl", oci_image_spec::check),
    compose::INTERPOLATION,
    compose::DOTENV,
    compose::PORT_SHORT,
    compose::VOLUME_SHORT,
    compose::MERGE,
    compose_load::LOAD,
];

const fn lines(
    name: &'static str,
    path: &'static str,
    check: fn(&Value) -> Result<(), String>,
) -> Kind {
    Kind { name, path, check: Check::Line(check), left_out: &[] }
}

impl Kind {
    /// Checks every case of a file (or of a folder of cases, for the kinds that have such).
    ///
    /// # Errors
    /// Where the cases cannot be read; a case that fails is an [`Outcome`].
    pub fn run(&self, path: &Path) -> io::Result<Vec<Outcome>> {
        match self.check {
            Check::Line(check) => {
                let text = fs::read_to_string(path)?;
                let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
                let checked = lines.map(|(index, line)| self.checked_line(index, line, check));
                checked.filter_map(Result::transpose).collect()
            }
            Check::Folder(check) => {
                let mut folders: Vec<PathBuf> = fs::read_dir(path)?
                    .map(|entry| entry.map(|e| e.path()))
                    .collect::<io::Result<_>>()?;
                folders.retain(|folder| folder.is_dir() && !self.leaves_out(&case_of(folder)));
                folders.sort();
                Ok(folders.iter().map(|f| Outcome { id: base_name(f), result: check(f) }).collect())
            }
        }
    }

    fn leaves_out(&self, case: &Value) -> bool {
        let test = case.get("test").and_then(Value::as_str).unwrap_or_default();
        self.left_out.iter().any(|name| test.split(' ').next() == Some(name))
    }

    fn checked_line(
        &self,
        index: usize,
        line: &str,
        check: fn(&Value) -> Result<(), String>,
    ) -> io::Result<Option<Outcome>> {
        let case: Value = serde_json::from_str(line)?;
        if self.leaves_out(&case) {
            return Ok(None);
        }
        let id = case.get("id").and_then(Value::as_str);
        let id = id.map_or_else(|| format!("line {}", index + 1), str::to_owned);
        Ok(Some(Outcome { id, result: check(&case) }))
    }
}

/// The description of a case that is a folder; nothing where it has none.
fn case_of(folder: &Path) -> Value {
    let text = fs::read_to_string(folder.join("case.json")).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// A field of a case that is a text.
fn text<'a>(case: &'a Value, field: &str) -> Result<&'a str, String> {
    case[field].as_str().ok_or_else(|| format!("the case has no text `{field}`"))
}

fn expect_equal(what: &str, expected: &Value, found: &Value) -> Result<(), String> {
    match expected == found {
        true => Ok(()),
        false => Err(format!("{what}: expected {expected}, found {found}")),
    }
}
