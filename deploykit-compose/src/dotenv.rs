//! Files of variables: `.env` and those that `env_file` names.
//!
//! The format is the one that the
//! [Compose documentation](https://docs.docker.com/compose/how-tos/environment-variables/variable-interpolation/#env-file-syntax)
//! describes.

use std::collections::BTreeMap;

use crate::interpolate::{InterpolateError, interpolate};

/// The most that the values of a file may come to.
const MAX_BYTES: usize = 8 << 20;

/// Why a file of variables cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct DotenvError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

/// Adds the variables of `text` to `variables`.
///
/// A name without a value takes the value that `lookup` has for it. A variable within a value is
/// asked of `lookup` first, then of what was read before.
///
/// ```
/// use std::collections::BTreeMap;
/// let mut variables = BTreeMap::new();
/// deploykit_compose::dotenv("PORT=80 # http\nURL=\"http://localhost:${PORT}\"", &mut variables, &|_| None)?;
/// assert_eq!(variables["URL"], "http://localhost:80");
/// # Ok::<(), deploykit_compose::DotenvError>(())
/// ```
///
/// # Errors
/// [`DotenvError`] at the first line that is malformed; earlier ones have been added.
pub fn dotenv(
    text: &str,
    variables: &mut BTreeMap<String, String>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(), DotenvError> {
    let mut bytes = 0;
    let mut parser = Parser { rest: text.strip_prefix('\u{feff}').unwrap_or(text), line: 1 };
    while parser.next_statement() {
        let Some(name) = parser.name()? else { continue };
        if !parser.take_separator() {
            if let Some(value) = lookup(&name) {
                variables.insert(name, value);
            }
            continue;
        }
        let line = parser.line;
        let (raw, expands) = parser.value()?;
        let known = |key: &str| lookup(key).or_else(|| variables.get(key).cloned());
        let value = match expands {
            true => interpolate(&raw, &known)
                .map_err(|e: InterpolateError| DotenvError { line, what: e.to_string() })?,
            false => raw,
        };
        bytes += value.len();
        if bytes > MAX_BYTES {
            let what = format!("the values come to more than {MAX_BYTES} bytes");
            return Err(DotenvError { line, what });
        }
        variables.insert(name, value);
    }
    Ok(())
}

/// The variables of a file whose values stand as they are: `NAME=value`, line by line.
///
/// # Errors
/// [`DotenvError`] at a line without a name.
pub(crate) fn raw(
    text: &str,
    variables: &mut BTreeMap<String, String>,
    lookup: &dyn Fn(&str) -> Option<String>,
) -> Result<(), DotenvError> {
    for (index, line) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let line_text = line.trim_start();
        if line_text.is_empty() || line_text.starts_with('#') {
            continue;
        }
        let (name, value) = match line_text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (line_text, lookup(line_text)),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let what = format!("`{name}` is not the name of a variable");
            return Err(DotenvError { line: index + 1, what });
        }
        if let Some(value) = value {
            variables.insert(name.to_owned(), value);
        }
    }
    Ok(())
}

struct Parser<'a> {
    rest: &'a str,
    line: usize,
}

fn blank(c: char) -> bool {
    matches!(c, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

impl<'a> Parser<'a> {
    fn error<T>(&self, what: String) -> Result<T, DotenvError> {
        Err(DotenvError { line: self.line, what })
    }

    fn advance(&mut self, bytes: usize) -> &'a str {
        let (taken, rest) = self.rest.split_at(bytes);
        self.line += taken.matches('\n').count();
        self.rest = rest;
        taken
    }

    fn first_line(&self) -> &'a str {
        self.rest.split('\n').next().unwrap_or(self.rest)
    }

    /// Goes past empty lines and comments; false at the end.
    fn next_statement(&mut self) -> bool {
        loop {
            let skipped = self.rest.len() - self.rest.trim_start().len();
            self.advance(skipped);
            if !self.rest.starts_with('#') {
                return !self.rest.is_empty();
            }
            self.advance(self.first_line().len());
        }
    }

    fn name(&mut self) -> Result<Option<String>, DotenvError> {
        if let Some(after) = self.rest.strip_prefix("export").filter(|a| a.starts_with(blank)) {
            self.rest = after.trim_start_matches(blank);
            if self.rest.is_empty() {
                return self.error("there is no name behind `export`".into());
            }
        }
        let line = self.first_line();
        let end = line.find(['=', ':']).unwrap_or(line.len());
        let fits = |c: char| c.is_alphanumeric() || "_.-[]".contains(c) || blank(c);
        if let Some(bad) = line[..end].chars().find(|c| !fits(*c)) {
            return self.error(format!("`{bad}` cannot be in the name of a variable"));
        }
        let name = line[..end].trim_end();
        if name.contains(' ') {
            return self.error(format!("`{name}` is not the name of a variable: it has a space"));
        }
        self.advance(end);
        Ok((end < line.len() || !name.is_empty()).then(|| name.to_owned()))
    }

    fn take_separator(&mut self) -> bool {
        let found = self.rest.starts_with(['=', ':']);
        if found {
            self.rest = self.rest[1..].trim_start_matches(blank);
        }
        found
    }

    /// The value without its quotes and escapes, and whether variables in it are replaced.
    fn value(&mut self) -> Result<(String, bool), DotenvError> {
        let quote = self.rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let Some(quote) = quote else {
            let line = self.first_line();
            self.advance(line.len());
            let value = line.split_once(" #").map_or(line, |(value, _)| value);
            return Ok((value.trim_end().to_owned(), true));
        };
        let body = &self.rest[1..];
        let mut raw = String::new();
        let mut escaped = false;
        for (at, c) in body.char_indices() {
            match (c, escaped) {
                (c, false) if c == quote => {
                    self.advance(at + 2);
                    let double = quote == '"';
                    return Ok((if double { unescape(&raw) } else { raw }, double));
                }
                (c, true) if c == quote => raw.push(c),
                ('\\', false) => {
                    escaped = true;
                    continue;
                }
                (c, true) => raw.extend(['\\', c]),
                (c, false) => raw.push(c),
            }
            escaped = false;
        }
        self.error(format!("the quoted value {} has no end", self.first_line()))
    }
}

/// Replaces the escapes of a shell's double quotes; `\$` becomes `$$`, which stays a dollar sign.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let simple = match after.chars().next() {
            Some('a') => "\u{7}",
            Some('b') => "\u{8}",
            Some('f') => "\u{c}",
            Some('n') => "\n",
            Some('r') => "\r",
            Some('t') => "\t",
            Some('v') => "\u{b}",
            Some('\\') => "\\",
            Some('"') => "\"",
            Some('$') => "$$",
            _ => "",
        };
        let octal = after.strip_prefix('0').and_then(|digits| digits.get(..3));
        let octal = octal.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        if !simple.is_empty() {
            out.push_str(simple);
            rest = &after[1..];
        } else if let Some(byte) = octal {
            out.push(char::from(byte));
            rest = &after[4..];
        } else {
            out.push('\\');
            rest = after;
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read(text: &str) -> Result<Vec<(String, String)>, DotenvError> {
        let mut variables = BTreeMap::new();
        dotenv(text, &mut variables, &|name| (name == "HOST").then(|| "here".into()))?;
        Ok(variables.into_iter().collect())
    }

    #[test]
    fn the_forms_of_a_line() {
        let text = "# c\nA=1 # one\nB = 'x $A' # c\nexport C=\"a\\tb\\\\ \\$A ${A}\\0101\"\n\nHOST\nGONE\nD: 2#3\nE=\nF=${HOST}";
        let expected = [
            ("A", "1"),
            ("B", "x $A"),
            ("C", "a\tb\\ $A 1A"),
            ("D", "2#3"),
            ("E", ""),
            ("F", "here"),
            ("HOST", "here"),
        ];
        let expected: Vec<_> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn errors_name_the_line() {
        let line = |text| read(text).unwrap_err().line;
        assert_eq!(line("A=1\nB C\n"), 2);
        assert_eq!(line("A=\"1\n2\"\nB='x"), 3);
        assert_eq!(line("A=1\n%=2"), 2);
        assert_eq!(line("A=1\nexport "), 2);
        assert_eq!(line("A=${"), 1);
    }

    #[test]
    fn raw_files_keep_values() {
        let mut variables = BTreeMap::new();
        raw("A='x' # ${B}\n\n# c\nHOST\n", &mut variables, &|_| Some("h".into())).unwrap();
        assert_eq!(variables["A"], "'x' # ${B}");
        assert_eq!(variables["HOST"], "h");
        assert_eq!(raw("A=1\n B C", &mut variables, &|_| None).unwrap_err().line, 2);
    }
}
