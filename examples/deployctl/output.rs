//! Standard output for people or for programs; progress and errors on standard error.

use std::io::{Write, stdout};
use std::time::SystemTime;

use deploykit::{Error, Event, Progress, Result};
use serde::Serialize;

use crate::file::failed;

/// How answers are written.
pub struct Output {
    /// As JSON.
    pub json: bool,
}

impl Output {
    /// Writes one answer: `value`, or `text` for people.
    pub fn value(&self, value: &impl Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let line = if self.json { json(value) } else { text() };
        if line.is_empty() { Ok(()) } else { self.line(&line) }
    }

    /// Writes a line as it is.
    pub fn line(&self, line: &str) -> Result<()> {
        writeln!(stdout(), "{line}").map_err(|e| failed("write", "standard output", e))
    }

    /// Where an apply reports: bars or lines for people, a line of JSON for each event for
    /// programs.
    pub fn progress(&self) -> Box<dyn Progress> {
        if !self.json {
            return deploykit::progress::terminal();
        }
        Box::new(|event: &Event| Self::event(event))
    }

    /// Writes something that happened as a line of JSON.
    pub fn event(event: &impl Serialize) {
        // Whoever has stopped reading does not stop what goes on.
        let _ = writeln!(stdout(), "{}", json(event));
    }

    /// Writes an error.
    pub fn error(&self, error: &Error) {
        if self.json {
            eprintln!("{}", json(error));
        } else {
            eprintln!("deployctl: {error}");
        }
    }
}

fn json(value: &impl Serialize) -> String {
    // Plain data with texts as keys: serialising it does not fail.
    serde_json::to_string(value).unwrap_or_default()
}

/// Lines of equally wide columns, the first being the headings; nothing where there are no rows.
pub fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let headings = headings.map(str::to_owned);
    let mut widths = headings.each_ref().map(String::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  "));
        cells.collect::<String>().trim_end().to_owned()
    };
    std::iter::once(&headings).chain(&rows).map(line).collect::<Vec<_>>().join("\n")
}

/// How long ago something was, in its largest unit.
pub fn age(at: SystemTime) -> String {
    let seconds = at.elapsed().map_or(0, |age| age.as_secs());
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
