//! The tools that we measure against.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// Where `name` is, installed if need be.
///
/// # Errors
/// Where it cannot be had: a bench without its peer says nothing.
pub fn peer(name: &str) -> Result<PathBuf> {
    let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/need");
    let output = Command::new(&need).arg(name).stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(format!("{} {name}: {}", need.display(), output.status).into());
    }
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}
