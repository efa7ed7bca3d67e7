//! The example `deployctl`, where a whole process of ours is measured.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;

/// Where it is, built as this bench is, with some features beside the default ones.
///
/// # Errors
/// Where it cannot be built.
pub fn deployctl(features: &[&str]) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "-p", "deploykit", "--example", "deployctl"])
        .arg("--features")
        .arg(features.join(","))
        .current_dir(workspace)
        .status()?;
    if !built.success() {
        return Err(format!("deployctl was not built: {built}").into());
    }
    // target/release/deps/<this bench>: examples are built beside.
    let program = std::env::current_exe()?;
    let release = program.parent().and_then(Path::parent).ok_or("this bench lies nowhere")?;
    Ok(release.join("examples/deployctl"))
}
