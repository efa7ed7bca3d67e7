//! The agent for engines that need one beside the services: built by the repository's own script
//! where there is none yet.

use std::path::PathBuf;
use std::process::Command;

/// What goes wrong is told in words.
type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Sees to it that the backend at `url` finds the program `deploykit-agent`, where it needs that.
pub fn ensure(url: &str) -> Result<()> {
    const NAME: &str = "deploykit-agent";
    if !url.starts_with("docker://") || std::env::var_os("DEPLOYKIT_AGENT").is_some() {
        return Ok(());
    }
    let beside = std::env::current_exe()?.with_file_name(NAME);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(NAME));
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testbed/agent");
    if beside.is_file() || places.any(|place| place.is_file()) || !script.is_file() {
        return Ok(());
    }
    eprintln!("building the agent that goes into containers (once, some minutes)");
    let built = Command::new(script).output()?;
    if !built.status.success() {
        let said = String::from_utf8_lossy(&built.stderr).into_owned();
        return Err(format!("the agent cannot be built: {said}").into());
    }
    // Whoever looks for it meanwhile finds it whole or not at all.
    let whole = beside.with_extension(std::process::id().to_string());
    std::fs::copy(String::from_utf8(built.stdout)?.trim(), &whole)?;
    Ok(std::fs::rename(whole, beside)?)
}
