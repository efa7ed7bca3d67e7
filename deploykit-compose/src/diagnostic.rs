//! What is wrong with a file, shown where it stands.

use std::fmt;
use std::sync::Arc;

use crate::yaml::Span;

/// A text that was read, and the name it is shown by.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// One thing that is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Where it stands.
    pub span: Span,
    /// The path of the field, like `services.web.ports[0]`; empty for the file itself.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What would be right; empty where nothing can be said.
    pub fix: String,
    /// Another place that it is about.
    pub also: Option<Span>,
}

impl Diagnostic {
    pub(crate) fn new(span: Span, path: impl Into<String>, what: impl Into<String>) -> Self {
        Self { span, path: path.into(), what: what.into(), fix: String::new(), also: None }
    }

    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }

    pub(crate) fn also(mut self, span: Span) -> Self {
        self.also = Some(span);
        self
    }
}

/// Everything that is wrong with a Compose project, with the files that it stands in.
///
/// Displayed, each has its file, line and column, and the offending text underlined:
///
/// ```text
/// error: services.web: `imagee` is not a key here (do you mean `image`?)
///   --> compose.yaml:3:5
///    |
///  3 |     imagee: nginx
///    |     ^^^^^^
/// ```
#[derive(Clone, Debug)]
pub struct ComposeError {
    diagnostics: Vec<Diagnostic>,
    sources: Arc<Vec<Source>>,
}

impl ComposeError {
    pub(crate) fn new(mut diagnostics: Vec<Diagnostic>, sources: Arc<Vec<Source>>) -> Self {
        diagnostics.sort_by_key(|d| (d.span.source, d.span.start));
        diagnostics.dedup();
        Self { diagnostics, sources }
    }

    /// Everything that is wrong, in the order of files and lines.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        &self.diagnostics
    }

    /// The file, line and column (both from 1) of a place; nothing for one that stands in no file.
    pub fn position(&self, span: Span) -> Option<(&str, usize, usize)> {
        let source = self.sources.get(span.source as usize)?;
        let (line, column, _) = locate(&source.text, span);
        Some((&source.name, line, column))
    }

    fn underlined(&self, f: &mut fmt::Formatter<'_>, span: Span, mark: char) -> fmt::Result {
        let Some(source) = self.sources.get(span.source as usize) else { return Ok(()) };
        let (line, column, text) = locate(&source.text, span);
        writeln!(f, "  --> {}:{line}:{column}", source.name)?;
        if source.text.is_empty() {
            return Ok(());
        }
        let width = line.to_string().len();
        let before: String =
            text.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let start = (span.start as usize).min(source.text.len());
        let end = (span.end as usize).clamp(start, source.text.len());
        let marked = source.text.get(start..end).unwrap_or_default();
        let length = marked.lines().next().map_or(0, |l| l.trim_end().chars().count()).max(1);
        writeln!(f, " {:width$} |", "")?;
        writeln!(f, " {line} | {text}")?;
        writeln!(f, " {:width$} | {before}{}", "", mark.to_string().repeat(length.min(200)))
    }
}

/// The line and column of a place, from 1, and the text of its line.
fn locate(text: &str, span: Span) -> (usize, usize, &str) {
    let mut at = (span.start as usize).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    let before = &text[..at];
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    (before.matches('\n').count() + 1, text[start..at].chars().count() + 1, line)
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, d) in self.diagnostics.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "error: ")?;
            if !d.path.is_empty() {
                write!(f, "{}: ", d.path)?;
            }
            write!(f, "{}", d.what)?;
            if !d.fix.is_empty() {
                write!(f, " ({})", d.fix)?;
            }
            writeln!(f)?;
            self.underlined(f, d.span, '^')?;
            if let Some(also) = d.also {
                self.underlined(f, also, '-')?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ComposeError {}

impl From<ComposeError> for deploykit_core::Error {
    fn from(error: ComposeError) -> Self {
        let problems = error.diagnostics.iter().map(|d| {
            let place = error
                .position(d.span)
                .map(|(file, line, column)| format!("{file}:{line}:{column}: "));
            let what = place.unwrap_or_default() + &d.what;
            deploykit_core::Problem::new(d.path.clone(), what, d.fix.clone())
        });
        Self::invalid("load the Compose project", problems.collect())
    }
}
