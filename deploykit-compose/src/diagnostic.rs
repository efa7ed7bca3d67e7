//! What is wrong with a file, shown where it stands.

use std::fmt;
use std::sync::Arc;

use crate::yaml::Span;

/// A text that was read, and the name it is shown by.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
    /// Where each line begins.
    lines: Vec<u32>,
}

impl Source {
    pub(crate) fn new(name: String, text: String) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0).chain(ends.map(|(at, _)| at as u32 + 1)).collect();
        Self { name, text, lines }
    }

    /// The line and column of a place, from 1, and the text of its line.
    fn locate(&self, span: Span) -> (usize, usize, &str) {
        let mut at = (span.start as usize).min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let line = self.lines.partition_point(|start| *start as usize <= at);
        let start = self.lines.get(line.wrapping_sub(1)).map_or(0, |start| *start as usize);
        let end = self.lines.get(line).map_or(self.text.len(), |next| *next as usize);
        let text = self.text[start..end].trim_end_matches(['\n', '\r']);
        (line, self.text[start..at].chars().count() + 1, text)
    }
}

/// The most problems that are shown.
const SHOWN: usize = 50;
/// The most characters of a line that are shown before what is meant, and from there on.
const AROUND: usize = 100;

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
/// Displayed, each of the first 50 has its file, line and column, and the offending text underlined:
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
        let (line, column, _) = source.locate(span);
        Some((&source.name, line, column))
    }

    fn underlined(&self, f: &mut fmt::Formatter<'_>, span: Span, mark: char) -> fmt::Result {
        let Some(source) = self.sources.get(span.source as usize) else { return Ok(()) };
        let (line, column, text) = source.locate(span);
        writeln!(f, "  --> {}:{line}:{column}", source.name)?;
        if source.text.is_empty() {
            return Ok(());
        }
        let width = line.to_string().len();
        let skipped = (column - 1).saturating_sub(AROUND);
        let shown: String = text.chars().skip(skipped).take(2 * AROUND).collect();
        let before = text.chars().skip(skipped).take(column - 1 - skipped);
        let before: String = before.map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let start = (span.start as usize).min(source.text.len());
        let end = (span.end as usize).clamp(start, source.text.len());
        let marked = source.text.get(start..end).unwrap_or_default();
        let length = marked.lines().next().map_or(0, |l| l.trim_end().chars().count());
        writeln!(f, " {:width$} |", "")?;
        writeln!(f, " {line} | {shown}")?;
        writeln!(f, " {:width$} | {before}{}", "", mark.to_string().repeat(length.clamp(1, AROUND)))
    }
}

impl fmt::Display for ComposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, d) in self.diagnostics.iter().take(SHOWN).enumerate() {
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
        match self.diagnostics.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => writeln!(f, "\n{more} more problems"),
        }
    }
}

impl std::error::Error for ComposeError {}

impl From<ComposeError> for deploykit_core::Error {
    fn from(error: ComposeError) -> Self {
        let problems = error.diagnostics.iter().take(SHOWN).map(|d| {
            let place = error
                .position(d.span)
                .map(|(file, line, column)| format!("{file}:{line}:{column}: "));
            let what = place.unwrap_or_default() + &d.what;
            deploykit_core::Problem::new(d.path.clone(), what, d.fix.clone())
        });
        Self::invalid("load the Compose project", problems.collect())
    }
}
