//! Finding the program `deploykit-agent`, for backends that put it into containers.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Result};
use tokio::process::Command;
use tokio::time::timeout;

use crate::control::program;
use crate::error::BACKEND;

/// The name of the program.
pub const NAME: &str = "deploykit-agent";
/// The environment variable that says where it is.
pub const VARIABLE: &str = "DEPLOYKIT_AGENT";
/// How long it may take to say its version.
const ANSWER: Duration = Duration::from_secs(10);

/// The operation of the errors of [`find`].
pub const OPERATION: &str = "find the agent";

/// Finds the program that this version of the library speaks with: where `configured` says, else
/// where the environment variable `DEPLOYKIT_AGENT` says, else beside this program, else on `PATH`.
///
/// # Errors
/// `NotFound` where there is none, with how to get it; `Unsupported` where the one that is found is
/// of another version, or needs files beside it so that it cannot be a container's only one.
pub async fn find(configured: Option<&Path>) -> Result<PathBuf> {
    let named = configured.map(Path::to_owned).or_else(|| env::var_os(VARIABLE).map(PathBuf::from));
    let candidates = match named {
        Some(path) => vec![path],
        None => env::current_exe()
            .ok()
            .and_then(|program| program.parent().map(Path::to_owned))
            .into_iter()
            .chain(env::var_os("PATH").iter().flat_map(env::split_paths))
            .map(|folder| folder.join(NAME))
            .collect(),
    };
    let Some(path) = candidates.iter().find(|path| path.is_file()) else {
        let looked: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
        let message = format!("there is none at {}; {}", looked.join(", "), how_to_get_it());
        return Err(Error::new(ErrorKind::NotFound, OPERATION, message).on(BACKEND));
    };
    check(path).await?;
    Ok(path.clone())
}

async fn check(path: &Path) -> Result<()> {
    let refuse = |kind, what: String| {
        let message = format!("{what}; {}", how_to_get_it());
        Err(Error::new(kind, OPERATION, message).on(BACKEND).with("path", path.display()))
    };
    match fs::read(path).map(|program| needs_loader(&program)) {
        Ok(false) => {}
        Ok(true) => {
            return refuse(ErrorKind::Unsupported, "it is not linked statically".to_owned());
        }
        Err(e) => return refuse(ErrorKind::Unauthorized, format!("it cannot be read: {e}")),
    }
    let said = Command::new(path).arg("--version").kill_on_drop(true).output();
    match timeout(ANSWER, said).await {
        Err(_) => refuse(ErrorKind::Timeout, "it does not say its version".to_owned()),
        Ok(Err(e)) => refuse(ErrorKind::Failed, format!("it cannot be executed: {e}")),
        Ok(Ok(output)) => match String::from_utf8_lossy(&output.stdout).trim() {
            version if version == program() => Ok(()),
            version => refuse(
                ErrorKind::Unsupported,
                format!("it calls itself `{version}`, and this is `{}`", program()),
            ),
        },
    }
}

fn how_to_get_it() -> String {
    format!(
        "get it by `RUSTFLAGS='-C target-feature=+crt-static' cargo install {NAME} --version {} --features server \
         --target {}-unknown-linux-gnu`, and name its path in {VARIABLE} where it is not on PATH",
        env!("CARGO_PKG_VERSION"),
        env::consts::ARCH
    )
}

/// Whether an executable names a loader
/// ([ELF-64](https://refspecs.linuxfoundation.org/elf/gabi4+/ch5.pheader.html), `PT_INTERP`).
fn needs_loader(program: &[u8]) -> bool {
    const INTERPRETER: u32 = 3;
    let number = |at: usize, size: usize| -> Option<usize> {
        let bytes = program.get(at..at.checked_add(size)?)?;
        Some(bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    };
    let headers = || {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        Some((0..count).filter_map(move |n| number(start.checked_add(n * size)?, 4)))
    };
    program.starts_with(b"\x7fELF\x02\x01")
        && headers().is_some_and(|mut kinds| kinds.any(|kind| kind == INTERPRETER as usize))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn says_what_is_wrong_with_what_it_finds() {
        let temp = tempfile::tempdir().unwrap();
        let missing = find(Some(&temp.path().join("agent"))).await.unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.message().contains("cargo install deploykit-agent"), "{missing}");

        let itself = env::current_exe().unwrap();
        assert!(needs_loader(&fs::read(&itself).unwrap()), "tests are linked dynamically");
        let dynamic = find(Some(&itself)).await.unwrap_err();
        assert!(dynamic.message().starts_with("it is not linked statically"), "{dynamic}");

        let script = temp.path().join("old");
        fs::write(&script, "#!/bin/sh\necho deploykit-agent 0.0.1\n").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let old = find(Some(&script)).await.unwrap_err();
        assert_eq!(old.kind(), ErrorKind::Unsupported);
        assert!(old.message().starts_with("it calls itself `deploykit-agent 0.0.1`"), "{old}");
    }
}
