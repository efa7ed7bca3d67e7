//! Reading files.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::diagnostic::Source;
use crate::interpolate::interpolate;
use crate::yaml::{self, Node, Span, Value};

use super::{Context, Loader, Variables};

/// The most values that all files of a project may come to.
const MAX_VALUES: usize = 400_000;

/// How many bytes of text count as one value.
pub(super) const TEXT: usize = 64;
/// What reading a file costs beside its bytes.
const FILE: usize = 64 * TEXT;

/// A document, and where it came from.
pub(super) struct Layer {
    pub(super) node: Node,
    pub(super) path: PathBuf,
    /// The folder that its relative paths begin at.
    pub(super) working_dir: PathBuf,
    /// Whether another file includes it.
    pub(super) included: bool,
}

/// A file's path, and its documents.
type Documents = (PathBuf, Vec<Node>);

impl Loader<'_> {
    /// The project's name, and the documents of every file.
    pub(super) fn read_files(&mut self) -> Option<(String, Vec<Documents>)> {
        let mut files = Vec::new();
        let environment = Arc::new(Variables::new());
        for file in &self.options.files {
            let nowhere = Span { source: u32::MAX, ..Span::default() };
            let text = file.text.clone().or_else(|| self.read_text(&file.path, nowhere));
            let documents = text.and_then(|text| self.documents(&file.path, text, &environment));
            files.extend(documents.map(|documents| (file.path.clone(), documents)));
        }
        self.stop()?;
        let all: Vec<&Node> = files.iter().flat_map(|(_, documents)| documents).collect();
        if all.is_empty() {
            self.problem(Span::default(), "", "there is nothing to load: no file has a document");
            return None;
        }
        let name = self.project_name(&all).unwrap_or_default();
        Some((name, files))
    }

    /// The text of a file; what goes wrong is shown at `span`.
    pub(super) fn read_text(&mut self, path: &Path, span: Span) -> Option<String> {
        match read_bounded(&self.options.folder.join(path)) {
            Ok(text) => self.spend(FILE + text.len(), span).map(|()| text),
            Err(error) => {
                self.problem(span, "", format!("cannot read {}: {error}", path.display()));
                None
            }
        }
    }

    /// The documents of a text; each is a mapping.
    pub(super) fn documents(
        &mut self,
        path: &Path,
        text: String,
        environment: &Arc<Variables>,
    ) -> Option<Vec<Node>> {
        let source = self.sources.len() as u32;
        let parsed = yaml::parse(&text, source);
        // What is too long is not kept.
        let text = if text.len() > yaml::MAX_BYTES { String::new() } else { text };
        self.sources.push(Source::new(path.display().to_string(), text));
        self.contexts.push(Context { environment: Arc::clone(environment), resolved: None });
        let (documents, values) = match parsed {
            Ok(parsed) => parsed,
            Err(problems) => {
                self.problems.extend(problems);
                return None;
            }
        };
        self.spend(values * TEXT, Span { source, ..Span::default() })?;
        if let Some(other) = documents.iter().find(|d| d.as_map().is_none()) {
            let what = format!("a Compose file is a mapping, and this is {}", other.kind());
            self.problem(other.span, "", what);
            return None;
        }
        Some(documents)
    }

    /// Counts what is read and made; nothing where that has become too much.
    pub(super) fn spend(&mut self, bytes: usize, span: Span) -> Option<()> {
        let spent = self.is_spent();
        self.values += bytes / TEXT;
        if self.is_spent() && !spent {
            let what = format!("the project comes to more than {MAX_VALUES} values");
            self.problem(span, "", what);
        }
        (!self.is_spent()).then_some(())
    }

    /// Whether more has been read than is looked at.
    pub(super) fn is_spent(&self) -> bool {
        self.values > MAX_VALUES
    }

    /// Replaces the variables in every text.
    pub(super) fn interpolate(&mut self, node: &mut Node, path: &str) {
        match &mut node.value {
            Value::String(text) if text.contains('$') => {
                let environment = self.environment(node.span);
                match interpolate(text, &|name| environment.get(name).cloned()) {
                    Ok(replaced) => {
                        let longer = replaced.len().saturating_sub(text.len());
                        if self.spend(longer, node.span).is_some() {
                            *text = replaced;
                        }
                    }
                    Err(error) => self.problem(node.span, path, error.to_string()),
                }
            }
            Value::List(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.interpolate(item, &format!("{path}[{index}]"));
                }
            }
            Value::Map(map) => {
                for (key, entry) in map.iter_mut() {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    self.interpolate(&mut entry.node, &path);
                }
            }
            _ => {}
        }
    }

    /// The variables that hold where something stands.
    pub(super) fn environment(&self, span: Span) -> Arc<Variables> {
        let context = self.contexts.get(span.source as usize);
        context.map(|c| Arc::clone(&c.environment)).unwrap_or_default()
    }
}

/// The text of a file, or the part of it that tells that it is too long.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = std::fs::File::open(path)?;
    file.take(yaml::MAX_BYTES as u64 + 1).read_to_string(&mut text)?;
    Ok(text)
}
