//! How failures of files become the one error type.

use std::fmt::Display;
use std::io;
use std::path::Path;

use deploykit_core::{Error, ErrorKind};

/// An error of this crate.
pub(crate) fn error(kind: ErrorKind, operation: &str, message: impl Into<String>) -> Error {
    Error::new(kind, operation, message).on("oci")
}

/// An error of the file system, on a path.
pub(crate) fn on_path<'a>(operation: &'a str, path: &'a Path) -> impl Fn(io::Error) -> Error + 'a {
    move |cause| on(operation, "path", path.display(), cause)
}

/// An error of the file system or of a reader, on something named.
pub(crate) fn on(operation: &str, key: &str, value: impl Display, cause: io::Error) -> Error {
    let (kind, message) = match cause.kind() {
        io::ErrorKind::NotFound => (ErrorKind::NotFound, "there is no such file"),
        io::ErrorKind::PermissionDenied => {
            (ErrorKind::Unauthorized, "the file's permissions don't allow it")
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            (ErrorKind::Unavailable, "the disk is full")
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            (ErrorKind::Corrupt, "the data is damaged")
        }
        _ => (ErrorKind::Failed, "the file system refused"),
    };
    error(kind, operation, message).with(key, value).because(cause)
}
