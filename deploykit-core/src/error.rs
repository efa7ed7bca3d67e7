//! The one error type of every crate in the workspace.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diagnosis::Diagnosis;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What kind of failure an [`Error`] is: what a program may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The thing asked for does not exist.
    NotFound,
    /// The name is taken, possibly by something that this library does not own.
    AlreadyExists,
    /// The input is wrong; [`Error::problems`] lists every problem.
    Invalid,
    /// The backend cannot do what was asked.
    Unsupported,
    /// Somebody else changed it meanwhile, or holds it.
    Conflict,
    /// The credentials or file permissions do not suffice.
    Unauthorized,
    /// The backend cannot be reached or has no room; trying again may help.
    Unavailable,
    /// A deadline passed.
    Timeout,
    /// It was tried and failed; [`Error::diagnoses`] may say why.
    Failed,
    /// Stored data cannot be read: damaged, or written by a newer version.
    Corrupt,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Invalid => "invalid",
            Self::Unsupported => "not supported",
            Self::Conflict => "conflict",
            Self::Unauthorized => "not permitted",
            Self::Unavailable => "unavailable",
            Self::Timeout => "timed out",
            Self::Failed => "failed",
            Self::Corrupt => "corrupt",
        })
    }
}

/// One thing that is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The path of the field, like `services.posts.ports[0].port`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What would be right; may be empty where nothing can be said.
    pub fix: String,
}

impl Problem {
    /// A problem at `path`: what is wrong, and what would be right.
    pub fn new(path: impl Into<String>, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { path: path.into(), what: what.into(), fix: fix.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.what)?;
        if !self.fix.is_empty() {
            write!(f, " ({})", self.fix)?;
        }
        Ok(())
    }
}

/// What was tried on what, what happened, and what to do.
///
/// ```
/// use deploykit_core::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::NotFound, "read the history", "no app of this name")
///     .on("local").with("app", "blog");
/// assert_eq!(error.to_string(), "read the history: no app of this name (backend local, app blog)");
/// assert!(!error.is_retryable());
/// ```
#[derive(Serialize, Deserialize)]
pub struct Error(Box<Inner>);

#[derive(Debug, Serialize, Deserialize)]
struct Inner {
    kind: ErrorKind,
    operation: String,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    backend: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    context: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    problems: Vec<Problem>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    diagnoses: Vec<Diagnosis>,
    #[serde(skip)]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// An error of `kind`: `operation` is what was tried ("start an instance"), `message` what
    /// happened and what to do.
    pub fn new(kind: ErrorKind, operation: impl Into<String>, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: operation.into(),
            message: message.into(),
            backend: None,
            context: Vec::new(),
            problems: Vec::new(),
            diagnoses: Vec::new(),
            source: None,
        }))
    }

    /// An [`ErrorKind::Invalid`] error that carries every problem of an input.
    pub fn invalid(operation: impl Into<String>, problems: Vec<Problem>) -> Self {
        let message = match problems.len() {
            1 => "1 problem".to_owned(),
            n => format!("{n} problems"),
        };
        let mut error = Self::new(ErrorKind::Invalid, operation, message);
        error.0.problems = problems;
        error
    }

    /// Like [`Error::invalid`], of another kind (a plan that a backend cannot honour).
    pub fn with_problems(mut self, problems: Vec<Problem>) -> Self {
        self.0.problems = problems;
        self
    }

    /// Adds why a rollout failed.
    pub fn with_diagnoses(mut self, diagnoses: Vec<Diagnosis>) -> Self {
        self.0.diagnoses = diagnoses;
        self
    }

    /// Names the backend.
    pub fn on(mut self, backend: impl Into<String>) -> Self {
        self.0.backend = Some(backend.into());
        self
    }

    /// Adds a fact: what it was tried on.
    pub fn with(mut self, key: impl Into<String>, value: impl fmt::Display) -> Self {
        self.0.context.push((key.into(), value.to_string()));
        self
    }

    /// Adds the error that caused this one.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What a program may branch on.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was tried.
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// What happened, without what was tried and on what.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The backend that it happened on, where it is known.
    pub fn backend(&self) -> Option<&str> {
        self.0.backend.as_deref()
    }

    /// Facts about what it was tried on.
    pub fn context(&self) -> &[(String, String)] {
        &self.0.context
    }

    /// Every problem of a bad input.
    pub fn problems(&self) -> &[Problem] {
        &self.0.problems
    }

    /// Why a rollout failed.
    pub fn diagnoses(&self) -> &[Diagnosis] {
        &self.0.diagnoses
    }

    /// Whether the same call may succeed later with nothing changed by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

/// As it is displayed: a `main` that returns this error shows it to people.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(f, "{}: {}", inner.operation, inner.message)?;
        let facts: Vec<String> = inner
            .backend
            .iter()
            .map(|b| format!("backend {b}"))
            .chain(inner.context.iter().map(|(k, v)| format!("{k} {v}")))
            .collect();
        if !facts.is_empty() {
            write!(f, " ({})", facts.join(", "))?;
        }
        for problem in &inner.problems {
            write!(f, "\n  - {problem}")?;
        }
        // Problems tell the same of each field, and what would be right.
        for diagnosis in inner.diagnoses.iter().filter(|_| inner.problems.is_empty()) {
            write!(f, "\n  - {diagnosis}")?;
        }
        if let Some(source) = &inner.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| s.as_ref() as _)
    }
}
