//! The project's name.

use crate::interpolate::interpolate;
use crate::yaml::{Node, Span};

use super::Loader;

impl Loader<'_> {
    /// The name that was given, or the last one that a file has.
    pub(super) fn project_name(&mut self, documents: &[&Node]) -> Option<String> {
        let (span, name) = match &self.options.project_name {
            Some(name) => {
                if normalized(name) != *name || name.is_empty() {
                    let what = format!(
                        "`{name}` is not the name of a project; use lower-case letters, digits, `-` \
                         and `_`, beginning with a letter or digit"
                    );
                    self.problem(Span { source: u32::MAX, ..Span::default() }, "name", what);
                    return None;
                }
                return Some(name.clone());
            }
            None => {
                let stated = documents.iter().filter_map(|d| d.get("name"));
                let mut stated = stated.filter(|n| n.as_str().is_some_and(|text| !text.is_empty()));
                let fallback = self.options.fallback_name.as_deref().map(normalized);
                stated.next_back().map_or((Span::default(), fallback.unwrap_or_default()), |node| {
                    (node.span, node.as_str().unwrap_or_default().to_owned())
                })
            }
        };
        let environment = &self.options.environment;
        match interpolate(&name, &|variable| environment.get(variable).cloned()) {
            Ok(name) if !self.options.normalize && !name.is_empty() => Some(name),
            Ok(name) => match normalized(&name) {
                name if name.is_empty() => {
                    let what = "the project has no name; write `name: …` in the file";
                    self.problem(span, "name", what);
                    None
                }
                name => Some(name),
            },
            Err(error) => {
                self.problem(span, "name", error.to_string());
                None
            }
        }
    }
}

/// The name with what no name has left out.
pub(super) fn normalized(name: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_-".contains(*c);
    let name: String = name.to_lowercase().chars().filter(kept).collect();
    name.trim_start_matches(['_', '-']).to_owned()
}
