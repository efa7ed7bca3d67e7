//! `.dockerignore`, with the semantics of <https://github.com/moby/patternmatcher>.

mod glob;

use deploykit_core::Problem;
use glob::Glob;

/// The rules of a `.dockerignore` file: which paths of a build's context are left out.
///
/// ```
/// use deploykit_oci::DockerIgnore;
/// let ignore = DockerIgnore::parse("# build output\n**/target\n!keep/target\n").unwrap();
/// assert!(ignore.excludes("a/b/target/debug/x.o"));
/// assert!(!ignore.excludes("keep/target/x.o"));
/// ```
#[derive(Clone, Debug, Default)]
pub struct DockerIgnore {
    rules: Vec<Rule>,
}

#[derive(Clone, Debug)]
struct Rule {
    glob: Glob,
    keep: bool,
}

impl DockerIgnore {
    /// Reads a `.dockerignore` file.
    ///
    /// # Errors
    /// Every pattern that is wrong, each with its line.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().enumerate().filter(|(_, line)| !line.starts_with('#'));
        let patterns = lines.map(|(index, line)| {
            let line = line.trim();
            let (mark, pattern) = match line.strip_prefix('!') {
                Some(pattern) => ("!", pattern.trim()),
                None => ("", line),
            };
            // Patterns are relative to the context's folder, whether they start with / or not.
            let cleaned = if pattern.is_empty() { String::new() } else { clean(pattern) };
            let relative = match cleaned.strip_prefix('/') {
                Some(rest) if !rest.is_empty() => rest,
                _ => cleaned.as_str(),
            };
            (format!("line {}", index + 1), format!("{mark}{relative}"))
        });
        Self::compile(patterns)
    }

    /// Takes patterns as they are, one of [`DockerIgnore::parse`]'s lines each.
    ///
    /// # Errors
    /// Every pattern that is wrong, each with its place.
    pub fn from_patterns(patterns: &[&str]) -> Result<Self, Vec<Problem>> {
        let numbered = patterns.iter().enumerate();
        Self::compile(numbered.map(|(index, p)| (format!("patterns[{index}]"), (*p).to_owned())))
    }

    fn compile(patterns: impl Iterator<Item = (String, String)>) -> Result<Self, Vec<Problem>> {
        let mut rules = Vec::new();
        let mut problems = Vec::new();
        for (place, pattern) in patterns {
            let pattern = pattern.trim();
            if pattern.is_empty() {
                continue;
            }
            let pattern = clean(pattern);
            let (keep, pattern) = match pattern.strip_prefix('!') {
                Some("") => {
                    problems.push(Problem::new(place, "`!` alone keeps nothing", "name a path"));
                    continue;
                }
                Some(rest) => (true, rest),
                None => (false, pattern.as_str()),
            };
            match Glob::new(pattern) {
                Some(glob) => rules.push(Rule { glob, keep }),
                None => problems.push(Problem::new(
                    place,
                    format!("`{pattern}` is not a pattern"),
                    "close each [ and put a character after each \\",
                )),
            }
        }
        if problems.is_empty() { Ok(Self { rules }) } else { Err(problems) }
    }

    /// Whether a path of the context, with `/` between its parts, is left out. The last rule that
    /// fits the path or a folder that it lies in decides.
    pub fn excludes(&self, path: &str) -> bool {
        self.rules.iter().fold(false, |excluded, rule| {
            // A rule that would change nothing is not looked at.
            if rule.keep != excluded {
                return excluded;
            }
            if rule.glob.matches(path) { !rule.keep } else { excluded }
        })
    }

    /// Whether something below an excluded folder may be kept, so that it has to be looked into.
    pub fn keeps_some(&self) -> bool {
        self.rules.iter().any(|rule| rule.keep)
    }
}

/// A path without `.`, `..` and doubled slashes, as far as that goes without a file system.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}
