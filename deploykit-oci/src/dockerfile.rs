//! Dockerfiles, accepted and rejected as BuildKit's parser does
//! (<https://github.com/moby/buildkit/tree/master/frontend/dockerfile/parser>). Whether an
//! instruction's arguments make sense is judged by whoever builds.

mod heredoc;
mod words;

use std::fmt;

pub use heredoc::Heredoc;

const LONGEST_LINE: usize = 65_535;

/// A Dockerfile's instructions.
///
/// ```
/// use deploykit_oci::Dockerfile;
/// let file = Dockerfile::parse("FROM scratch\nCOPY --chown=1 app \\\n  /app\nCMD [\"/app\"]\n")?;
/// assert_eq!(file.instructions[1].flags, ["--chown=1"]);
/// assert_eq!(file.instructions[1].arguments, "app   /app");
/// assert_eq!(file.instructions[2].json, Some(vec!["/app".to_owned()]));
/// # Ok::<(), deploykit_oci::DockerfileError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// The instructions in their order.
    pub instructions: Vec<Instruction>,
    /// The character that continues lines: `\`, or `` ` `` where a directive says so.
    pub escape: char,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its name in lower case, known or not.
    pub name: String,
    /// The words starting with `--` before the arguments.
    pub flags: Vec<String>,
    /// The rest of the line, continued lines joined.
    pub arguments: String,
    /// The arguments, where they are written as a JSON array and the instruction takes one.
    pub json: Option<Vec<String>>,
    /// The instruction that `ONBUILD` puts off.
    pub inner: Option<Box<Instruction>>,
    /// The here-documents that follow the line.
    pub heredocs: Vec<Heredoc>,
    /// The number of its first line, from 1.
    pub line: usize,
}

/// Why a text is no Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct DockerfileError {
    /// The number of the line, from 1.
    pub line: usize,
    /// What is wrong there, and what would be right.
    pub what: String,
}

fn wrong(line: usize, what: impl fmt::Display) -> DockerfileError {
    DockerfileError { line, what: what.to_string() }
}

impl Dockerfile {
    /// Parses a Dockerfile.
    ///
    /// # Errors
    /// The first thing that is wrong, with its line.
    pub fn parse(text: &str) -> Result<Self, DockerfileError> {
        let mut reader = Reader::new(text)?;
        let mut instructions = Vec::new();
        while let Some((number, line)) = reader.next_logical_line()? {
            let mut instruction = Instruction::parse(&line, reader.escape, number)?;
            if instruction.takes_heredocs() && line.contains("<<") {
                for mut heredoc in heredoc::announced(&line) {
                    reader.read_heredoc(&mut heredoc)?;
                    instruction.heredocs.push(heredoc);
                }
            }
            instructions.push(instruction);
        }
        if instructions.is_empty() {
            return Err(wrong(reader.number.max(1), "no instruction; start with FROM"));
        }
        Ok(Self { instructions, escape: reader.escape })
    }
}

/// The lines of a file, and the directives at its top.
struct Reader<'a> {
    lines: std::iter::Peekable<std::str::SplitInclusive<'a, char>>,
    number: usize,
    escape: char,
    directives: Option<Vec<String>>,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Result<Self, DockerfileError> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let too_long = |line: &str| line.trim_end_matches('\n').len() > LONGEST_LINE;
        if let Some(index) = text.split_inclusive('\n').position(too_long) {
            return Err(wrong(index + 1, format!("more than {LONGEST_LINE} bytes; split it")));
        }
        let lines = text.split_inclusive('\n').peekable();
        Ok(Self { lines, number: 0, escape: '\\', directives: Some(Vec::new()) })
    }

    /// The next line with its line end.
    fn next_line(&mut self) -> Option<&'a str> {
        let line = self.lines.next()?;
        self.number += 1;
        Some(line)
    }

    /// The next instruction's text, its continued lines joined, and the number of its first line.
    fn next_logical_line(&mut self) -> Result<Option<(usize, String)>, DockerfileError> {
        while let Some(line) = self.next_line() {
            let line = without_line_end(line).trim_start();
            self.read_directive(line)?;
            if line.starts_with('#') {
                continue;
            }
            let (start, continued) = self.split_continuation(line);
            if !continued && start.is_empty() {
                continue;
            }
            let number = self.number;
            let mut whole = start.to_owned();
            let mut continued = continued;
            while continued && let Some(line) = self.next_line() {
                let line = without_line_end(line);
                let bare = line.trim_start();
                if bare.is_empty() || bare.starts_with('#') {
                    continue;
                }
                let (part, more) = self.split_continuation(line);
                whole.push_str(part);
                continued = more;
            }
            return Ok(Some((number, whole)));
        }
        Ok(None)
    }

    /// The line without the escape character that continues it, and whether there was one.
    fn split_continuation<'l>(&self, line: &'l str) -> (&'l str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(start) => (start, true),
            None => (line, false),
        }
    }

    /// Directives are comments like `# escape=…` above everything else.
    fn read_directive(&mut self, line: &str) -> Result<(), DockerfileError> {
        let Some(mut seen) = self.directives.take() else { return Ok(()) };
        let Some((key, value)) = directive(line) else { return Ok(()) };
        if seen.contains(&key) {
            return Err(wrong(self.number, format!("a second directive `{key}`; keep one")));
        }
        if key == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                _ => return Err(wrong(self.number, format!("escape is \\ or `, not {value}"))),
            };
        }
        seen.push(key);
        self.directives = Some(seen);
        Ok(())
    }

    fn read_heredoc(&mut self, heredoc: &mut Heredoc) -> Result<(), DockerfileError> {
        let started = self.number;
        while let Some(line) = self.next_line() {
            let end = line.strip_suffix('\n').unwrap_or(line);
            let end = end.strip_suffix('\r').unwrap_or(end);
            let end = if heredoc.strip_tabs { end.trim_start_matches('\t') } else { end };
            if end == heredoc.name {
                return Ok(());
            }
            heredoc.content.push_str(line);
        }
        let name = &heredoc.name;
        Err(wrong(started, format!("no line `{name}` ends what `<<{name}` starts; add one")))
    }
}

fn without_line_end(line: &str) -> &str {
    let line = line.strip_suffix('\n').unwrap_or(line);
    line.strip_suffix('\r').unwrap_or(line)
}

/// The key, in lower case, and the value of a known directive.
fn directive(line: &str) -> Option<(String, &str)> {
    let (key, value) = line.strip_prefix('#')?.split_once('=')?;
    let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
    let known = matches!(key.as_str(), "escape" | "syntax" | "check");
    (known && !value.is_empty()).then_some((key, value))
}

impl Instruction {
    fn parse(line: &str, escape: char, number: usize) -> Result<Self, DockerfileError> {
        let line = line.trim();
        let is_space = |c: char| matches!(c, ' ' | '\t' | '\u{b}' | '\u{c}' | '\r');
        let (name, rest) = match line.split_once(is_space) {
            Some((name, rest)) => (name, rest.trim_start_matches(is_space)),
            None => (line, ""),
        };
        let name = name.to_lowercase();
        let (flags, arguments) = words::flags(rest);
        let arguments = arguments.trim();
        let mut json = None;
        let mut inner = None;
        match name.as_str() {
            "add" | "cmd" | "copy" | "entrypoint" | "run" | "shell" | "volume" => {
                json = json_array(arguments, number)?;
            }
            "healthcheck" => {
                let after_kind = arguments.split_once(char::is_whitespace).map(|(_, rest)| rest);
                json = json_array(after_kind.unwrap_or_default(), number)?;
            }
            "env" | "label" => {
                words::check_pairs(arguments, &name, escape).map_err(|what| wrong(number, what))?
            }
            "onbuild" if !arguments.is_empty() => {
                inner = Some(Box::new(Self::parse(arguments, escape, number)?));
            }
            _ => {}
        }
        Ok(Self {
            name,
            flags,
            arguments: arguments.to_owned(),
            json,
            inner,
            heredocs: Vec::new(),
            line: number,
        })
    }

    fn takes_heredocs(&self) -> bool {
        match &self.inner {
            Some(inner) => inner.takes_heredocs_itself(),
            None => self.takes_heredocs_itself(),
        }
    }

    fn takes_heredocs_itself(&self) -> bool {
        matches!(self.name.as_str(), "add" | "copy" | "run") && self.json.is_none()
    }
}

/// What is not a JSON array at all is plain text; an array of other things than strings is wrong.
fn json_array(text: &str, line: usize) -> Result<Option<Vec<String>>, DockerfileError> {
    use serde_json::Value;
    let text = text.trim_start();
    let values: Vec<Value> = match text.starts_with('[').then(|| serde_json::from_str(text)) {
        Some(Ok(values)) => values,
        _ => return Ok(None),
    };
    let strings = values.into_iter().map(|value| match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(line, format!("a JSON array takes strings only, not {other}"))),
    });
    strings.collect::<Result<_, _>>().map(Some)
}
