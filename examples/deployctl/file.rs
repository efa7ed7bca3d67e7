//! Files that are read and written.

use std::fmt::Display;
use std::io::Read;
use std::path::Path;

use deploykit::{Error, ErrorKind, Result};

/// The most bytes that are read of a file: more than any reader of them takes.
const MOST: u64 = 16 << 20;

/// The text of a file that the caller has named.
pub fn text(path: &Path) -> Result<String> {
    let read = match path.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().take(MOST).read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::File::open(path).and_then(|file| {
            let mut text = String::new();
            file.take(MOST).read_to_string(&mut text).map(|_| text)
        }),
    };
    read.map_err(|e| {
        Error::new(ErrorKind::Invalid, "read the file", e.to_string()).with("file", path.display())
    })
}

/// Writes a file that the caller has named.
pub fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).map_err(|e| failed("write", path.display(), e))
}

/// An error of the operating system.
pub fn failed(what: &str, on: impl Display, error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, format!("{what} {on}"), error.to_string())
}
