//! How errors of the system become this library's.
//!
//! The cause is kept as text: errors travel to the agent's clients.

/// How the agent is called in errors.
pub(crate) const BACKEND: &str = "agent";

/// An error of the file system: what was tried, on which path.
#[cfg(any(feature = "seal", feature = "server"))]
pub(crate) fn io(
    operation: &str,
    path: &std::path::Path,
    error: std::io::Error,
) -> deploykit_core::Error {
    use deploykit_core::{Error, ErrorKind};
    use std::io;

    let (kind, message) = match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "there is no such file or folder"),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Unauthorized, "not permitted; it must belong to the user who runs this")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Unauthorized, "the file system is read-only")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, "no space is left; free some and run it again")
        }
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            (ErrorKind::AlreadyExists, "something else is in the way; choose another path")
        }
        _ => (ErrorKind::Failed, "the operating system refused"),
    };
    Error::new(kind, operation, message)
        .on(BACKEND)
        .with("path", path.display())
        .with("cause", error)
}
