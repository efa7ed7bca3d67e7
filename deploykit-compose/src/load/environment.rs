//! The variables and labels of services.

use std::path::PathBuf;
use std::sync::Arc;

use crate::dotenv::{dotenv, raw};
use crate::yaml::{Entry, Mapping, Node, Value};

use super::{Loader, Variables};

impl Loader<'_> {
    /// Gives variables without a value the one that they have where they stand.
    pub(super) fn resolve_variables(&mut self, root: &mut Node) {
        let normalize = self.options.normalize;
        for (_, service) in root.get_mut("services").into_iter().flat_map(Node::entries_mut) {
            if let Some(environment) = service.get_mut("environment") {
                self.resolve(environment, false);
            }
            if let Some(args) =
                service.get_mut("build").and_then(|b| b.get_mut("args")).filter(|_| normalize)
            {
                self.resolve(args, true);
            }
        }
    }

    fn resolve(&self, variables: &mut Node, drop_unknown: bool) {
        let Some(map) = variables.as_map_mut() else { return };
        for (name, entry) in map.iter_mut().filter(|(_, entry)| entry.node.is_null()) {
            if let Some(value) = self.environment(entry.node.span).get(name) {
                entry.node.value = Value::String(value.clone());
            }
        }
        if drop_unknown {
            map.retain(|_, entry| !entry.node.is_null());
        }
    }

    /// Adds what `env_file` and `label_file` have below what the service says itself.
    pub(super) fn read_variable_files(&mut self, root: &mut Node) {
        let Some(mut services) = root.take("services") else { return };
        for (name, service) in services.entries_mut() {
            let path = format!("services.{name}");
            let own = texts(service.get("environment"));
            let mut variables = Variables::new();
            for file in service.get("env_file").map(Node::items).unwrap_or_default() {
                self.read_env_file(file, &own, &mut variables, &path);
            }
            let bytes = variables.values().map(|value| 64 + value.len()).sum();
            if self.spend(bytes, service.span).is_none() {
                break;
            }
            below(service, "environment", variables);
            let mut labels = Variables::new();
            for file in service.get("label_file").map(Node::items).unwrap_or_default() {
                let Some(text) =
                    self.read_text(&PathBuf::from(file.as_str().unwrap_or_default()), file.span)
                else {
                    continue;
                };
                if let Err(error) = dotenv(&text, &mut labels, &|_| None) {
                    self.problem(file.span, &format!("{path}.label_file"), error.to_string());
                }
            }
            below(service, "labels", labels);
        }
        root.put("services", services);
    }

    fn read_env_file(
        &mut self,
        file: &Node,
        own: &Variables,
        variables: &mut Variables,
        path: &str,
    ) {
        let name = PathBuf::from(file.str("path").unwrap_or_default());
        let span = file.get("path").map_or(file.span, |node| node.span);
        let required = file.get("required").and_then(Node::as_bool) != Some(false);
        if !required && !self.options.folder.join(&name).exists() {
            return;
        }
        let Some(text) = self.read_text(&name, span) else { return };
        // Those of the project, of which what a file is included with is no part.
        let outer = Arc::clone(&self.variables);
        let lookup = |key: &str| outer.get(key).or_else(|| own.get(key)).cloned();
        let read = match file.str("format") {
            None => dotenv(&text, variables, &lookup),
            Some("raw") => raw(&text, variables, &lookup),
            Some(other) => {
                let what = format!("`{other}` is not a format of variables; there is only `raw`");
                return self.problem(span, &format!("{path}.env_file"), what);
            }
        };
        if let Err(error) = read {
            let what = format!("{}: {error}", name.display());
            self.problem(span, &format!("{path}.env_file"), what);
        }
    }
}

fn texts(variables: Option<&Node>) -> Variables {
    let entries = variables.into_iter().flat_map(Node::entries);
    entries.filter_map(|(name, node)| Some((name.to_owned(), node.as_str()?.to_owned()))).collect()
}

/// Adds variables that are not there yet.
fn below(service: &mut Node, key: &str, variables: Variables) {
    if variables.is_empty() {
        return;
    }
    let span = service.span;
    let mut map = Mapping::new();
    for (name, value) in variables {
        map.insert(name, Entry { key: span, node: Node::new(Value::String(value), span) });
    }
    if let Some(own) = service.get(key).and_then(Node::as_map) {
        let own = own.iter().map(|(name, entry)| (name.clone(), entry.clone()));
        map.extend(own);
    }
    service.set(key, Value::Map(map));
}
