//! How errors of the file system and of SQLite become this library's.
//!
//! The cause is kept as text: errors travel over the supervisor's socket.

use std::io;
use std::path::Path;

use deploykit_core::{Error, ErrorKind};

/// How this backend is called in errors.
pub(crate) const BACKEND: &str = "local";

/// An error of the file system: what was tried, on which path.
pub(crate) fn io(operation: &str, path: &Path, error: io::Error) -> Error {
    let (kind, message) = describe(&error);
    Error::new(kind, operation, message).on(BACKEND).with("path", path.display()).with("cause", error)
}

fn describe(error: &io::Error) -> (ErrorKind, &'static str) {
    match error.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "there is no such file or folder"),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Unauthorized, "not permitted; it must belong to the user who runs this")
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            (ErrorKind::Unauthorized, "the file system is read-only; choose another folder")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, "no space is left; free some and run it again")
        }
        io::ErrorKind::TimedOut => (ErrorKind::Timeout, "no answer in time"),
        _ => (ErrorKind::Failed, "the operating system refused"),
    }
}

/// An error of SQLite: what was tried.
pub(crate) fn database(operation: &str, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode;
    let (kind, message) = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => (ErrorKind::Unavailable, "no space is left; free some and run it again"),
        Some(ErrorCode::PermissionDenied | ErrorCode::ReadOnly | ErrorCode::CannotOpen) => (
            ErrorKind::Unauthorized,
            "the state file cannot be written; the folder must belong to the user who runs this",
        ),
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => (ErrorKind::Corrupt, "the state file is damaged"),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            (ErrorKind::Conflict, "another program holds the state file")
        }
        _ => (ErrorKind::Failed, "the state file could not be used"),
    };
    Error::new(kind, operation, message).on(BACKEND).with("cause", error)
}
