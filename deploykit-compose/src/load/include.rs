//! Files that include others.
//!
//! [Specification](https://github.com/compose-spec/compose-spec/blob/main/14-include.md)

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::dotenv::dotenv;
use crate::merge::merge;
use crate::yaml::{Node, Span, Value};

use super::files::Layer;
use super::paths::join;
use super::{Loader, Variables};

/// The sections that come from an included file.
const IMPORTED: [&str; 6] = ["services", "volumes", "networks", "secrets", "configs", "models"];

impl Loader<'_> {
    /// Replaces a layer's variables, puts what it includes before it, and settles what its services
    /// extend. `chain` are the files that led here.
    pub(super) fn expand(
        &mut self,
        mut layer: Layer,
        chain: &mut Vec<PathBuf>,
        out: &mut Vec<Layer>,
    ) {
        self.interpolate(&mut layer.node, "");
        let include = layer.node.take("include");
        if let Some(include) = include {
            if chain.contains(&layer.path) {
                let names: Vec<String> = chain.iter().map(|p| p.display().to_string()).collect();
                let what = format!("the files include each other: {}", names.join(", "));
                self.problem(include.span, "include", what);
                return;
            }
            chain.push(layer.path.clone());
            match &include.value {
                Value::List(items) => {
                    for item in items {
                        let mut layers = Vec::new();
                        self.include(item, &layer, chain, &mut layers);
                        self.import(&mut layer, layers);
                    }
                }
                Value::Null => {}
                _ => self.problem(include.span, "include", "this is not a list of files"),
            }
            chain.pop();
        }
        if layer.included {
            let working_dir = layer.working_dir.to_string_lossy().into_owned();
            self.resolve_paths(&mut layer.node, &working_dir);
            if let Some(context) = self.contexts.get_mut(layer.node.span.source as usize) {
                context.resolved = Some(working_dir);
            }
        }
        self.extend_services(&mut layer);
        out.push(layer);
    }

    /// Lays a document over those that it includes.
    fn import(&mut self, layer: &mut Layer, included: Vec<Layer>) {
        let mut all = Node::default();
        for mut other in included {
            if let Some(map) = other.node.as_map_mut() {
                map.retain(|section, _| IMPORTED.contains(&section.as_str()));
            }
            all = match all.is_null() {
                true => other.node,
                false => self.merged(all, other.node),
            };
        }
        for (section, there) in all.entries_mut() {
            let Some(own) = layer.node.get(section) else { continue };
            // What comes by two ways is the same once.
            let same = |name: &str, node: &Node| own.get(name) == Some(node);
            if let Some(map) = there.as_map_mut() {
                map.retain(|name, entry| !same(name, &entry.node));
            }
        }
        if !all.is_null() {
            let own = std::mem::take(&mut layer.node);
            let span = own.span;
            layer.node = self.merged(all, own);
            layer.node.span = span;
        }
    }

    fn merged(&mut self, base: Node, over: Node) -> Node {
        merge(base, over).unwrap_or_else(|problems| {
            self.problems.extend(problems);
            Node::default()
        })
    }

    fn include(
        &mut self,
        item: &Node,
        parent: &Layer,
        chain: &mut Vec<PathBuf>,
        out: &mut Vec<Layer>,
    ) {
        let files = match &item.value {
            Value::String(_) => vec![item.clone()],
            _ => several(item.get("path")),
        };
        let unknown =
            item.entries().find(|(k, _)| !["path", "env_file", "project_directory"].contains(k));
        if files.is_empty() || unknown.is_some() {
            let what = "an include is a path, or has `path`, `env_file` and `project_directory`";
            self.problem(item.span, "include", what);
            return;
        }
        let base = parent.working_dir.to_string_lossy().into_owned();
        let mut folder: Option<PathBuf> =
            item.str("project_directory").map(|d| join(&base, d).into());
        let mut environment: Option<Arc<Variables>> = None;
        for file in files {
            let path = PathBuf::from(join(&base, file.as_str().unwrap_or_default()));
            let folder =
                folder.get_or_insert_with(|| path.parent().unwrap_or(Path::new("")).into());
            let folder = folder.clone();
            let variables = match &environment {
                Some(variables) => Arc::clone(variables),
                None => self.included_variables(item, &base, &folder),
            };
            environment = Some(Arc::clone(&variables));
            let Some(text) = self.read_text(&path, file.span) else { continue };
            for node in self.documents(&path, text, &variables).unwrap_or_default() {
                let layer =
                    Layer { node, path: path.clone(), working_dir: folder.clone(), included: true };
                self.expand(layer, chain, out);
            }
        }
    }

    /// The variables that hold in an included file: those of the including one, then those of its
    /// `env_file`, or of `.env` beside it.
    fn included_variables(&mut self, item: &Node, base: &str, folder: &Path) -> Arc<Variables> {
        let parent = self.environment(item.span);
        let mut variables = Variables::new();
        let named = several(item.get("env_file"));
        let mut files: Vec<(PathBuf, Span)> = named
            .iter()
            .filter_map(|file| Some((file.as_str()?, file.span)))
            .filter(|(file, _)| *file != "/dev/null")
            .map(|(file, span)| (join(base, file).into(), span))
            .collect();
        let implied = folder.join(".env");
        if named.is_empty() && self.options.folder.join(&implied).is_file() {
            files.push((implied, item.span));
        }
        for (file, span) in files {
            let Some(text) = self.read_text(&file, span) else { continue };
            if let Err(error) = dotenv(&text, &mut variables, &|name| parent.get(name).cloned()) {
                self.problem(span, "include", format!("{}: {error}", file.display()));
            }
        }
        variables.extend(parent.iter().map(|(name, value)| (name.clone(), value.clone())));
        Arc::new(variables)
    }
}

fn several(node: Option<&Node>) -> Vec<Node> {
    match node {
        Some(node) if node.as_str().is_some() => vec![node.clone()],
        Some(node) => node.items().to_vec(),
        None => Vec::new(),
    }
}
