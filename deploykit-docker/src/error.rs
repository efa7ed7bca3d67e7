//! The engine's errors as core's.

use bollard::errors::Error as Engine;
use deploykit_core::{Error, ErrorKind, Result};

/// The word for this backend.
pub(crate) const BACKEND: &str = "docker";

/// An error of this backend.
pub(crate) fn error(kind: ErrorKind, operation: &str, message: impl Into<String>) -> Error {
    Error::new(kind, operation, message).on(BACKEND)
}

/// What the engine has answered, or why it has not.
pub(crate) fn engine(operation: &str, cause: Engine) -> Error {
    let kind = match &cause {
        Engine::DockerResponseServerError { status_code, message } => match status_code {
            304 => ErrorKind::Failed,
            400 => ErrorKind::Invalid,
            401 | 403 => ErrorKind::Unauthorized,
            404 => ErrorKind::NotFound,
            409 => ErrorKind::AlreadyExists,
            501 => ErrorKind::Unsupported,
            503 => ErrorKind::Unavailable,
            // Debian's engine answers 500 for what a registry has refused.
            _ if message.contains("denied") || message.contains("unauthorized") => {
                ErrorKind::Unauthorized
            }
            _ => ErrorKind::Failed,
        },
        Engine::RequestTimeoutError => ErrorKind::Timeout,
        Engine::IOError { .. }
        | Engine::HyperResponseError { .. }
        | Engine::HttpClientError { .. } => ErrorKind::Unavailable,
        _ => ErrorKind::Failed,
    };
    let message = match &cause {
        Engine::DockerResponseServerError { message, .. } => message.trim().to_owned(),
        Engine::DockerStreamError { error } => error.trim().to_owned(),
        Engine::RequestTimeoutError => "the engine has not answered in time".to_owned(),
        Engine::IOError { err } => format!("the engine cannot be reached: {err}"),
        other => other.to_string(),
    };
    error(kind, operation, message)
}

/// Whether an object was not there.
pub(crate) fn is_missing(cause: &Engine) -> bool {
    status(cause) == Some(404)
}

/// The HTTP status of an answer.
pub(crate) fn status(cause: &Engine) -> Option<u16> {
    match cause {
        Engine::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

/// Maps the error of a call.
pub(crate) trait Mapped<T> {
    /// The error with what was tried.
    fn tried(self, operation: &str) -> Result<T>;

    /// Like [`Mapped::tried`], with nothing where the object is not there.
    fn optional(self, operation: &str) -> Result<Option<T>>;
}

impl<T> Mapped<T> for Result<T, Engine> {
    fn tried(self, operation: &str) -> Result<T> {
        self.map_err(|cause| engine(operation, cause))
    }

    fn optional(self, operation: &str) -> Result<Option<T>> {
        match self {
            Ok(value) => Ok(Some(value)),
            Err(cause) if is_missing(&cause) => Ok(None),
            Err(cause) => Err(engine(operation, cause)),
        }
    }
}
