//! Files that are read and written.

use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};

use deploykit::model::App;
use deploykit::{Error, ErrorKind, Result};

#[derive(clap::Args)]
pub struct FileArguments {
    /// The app's file, as YAML or JSON; `-` for standard input.
    #[arg(short, long, value_name = "FILE")]
    file: PathBuf,
}

impl FileArguments {
    /// The app in the file.
    pub fn app(&self) -> Result<App> {
        app(&self.file)
    }
}

/// The app in a file.
pub fn app(path: &Path) -> Result<App> {
    App::from_yaml(&text(path)?).map_err(|error| error.with("file", path.display()))
}

/// The text of a file that the caller has named.
pub fn text(path: &Path) -> Result<String> {
    let read = match path.to_str() {
        Some("-") => {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).map(|_| text)
        }
        _ => std::fs::read_to_string(path),
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
