//! Values in files that are whole at every moment: a power cut leaves the old one or the new one.
//!
//! A file is a line that says what it is, with the SHA-256 of what follows, and then JSON. One that
//! is damaged, or of a newer version, is refused and left as it is.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use deploykit_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::error::{self, BACKEND};

/// Says whose file it is.
const NAME: &str = "deploykit-agent";
/// The layout that this program writes.
const LAYOUT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    file_of: String,
    layout: u32,
    #[serde(default)]
    sha256: String,
}

/// Reads the value at `path`; nothing where there is no file.
///
/// # Errors
/// `Corrupt` where it is damaged or of a newer version.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(error::io("read the agent's state", path, e)),
    };
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (header, body) = bytes.split_at(end);
    let body = body.get(1..).unwrap_or_default();
    let header: Header =
        serde_json::from_slice(header).map_err(|_| damaged(path, "it does not say what it is"))?;
    if header.file_of != NAME {
        return Err(damaged(path, "it is another program's"));
    }
    if header.layout > LAYOUT {
        let message = format!(
            "it was written by a newer version of the agent (layout {}; this one knows {LAYOUT}): use that version",
            header.layout
        );
        return Err(corrupt(path, message));
    }
    if header.layout < LAYOUT || header.sha256 != sha256(body) {
        return Err(damaged(path, "its content does not fit its checksum"));
    }
    serde_json::from_slice(body).map(Some).map_err(|e| damaged(path, &e.to_string()))
}

/// Replaces the value at `path`; it is on the disk when this returns. Where this fails, the old
/// value is there (or, after a failure of the disk itself, possibly the new one).
///
/// # Errors
/// `Unavailable` where no room is left; others of the file system.
pub(super) fn write(path: &Path, value: &impl Serialize) -> Result<()> {
    let failed = |e| error::io("write the agent's state", path, e);
    let body = serde_json::to_vec(value).map_err(|e| failed(e.into()))?;
    let header = Header { file_of: NAME.to_owned(), layout: LAYOUT, sha256: sha256(&body) };
    let mut content = serde_json::to_vec(&header).map_err(|e| failed(e.into()))?;
    content.push(b'\n');
    content.extend(body);
    let temporary = path.with_extension("new");
    replace(&temporary, path, &content).map_err(|e| {
        let _ = fs::remove_file(&temporary);
        failed(e)
    })
}

fn replace(temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = File::options();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(temporary, path)?;
    File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn corrupt(path: &Path, message: String) -> Error {
    let error = Error::new(ErrorKind::Corrupt, "read the agent's state", message);
    error.on(BACKEND).with("path", path.display())
}

fn damaged(path: &Path, what: &str) -> Error {
    let message = format!(
        "it is damaged ({what}) and was left as it is: put a copy of it back, or move it away to begin anew"
    );
    corrupt(path, message)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_damage_is_found_and_nothing_is_touched() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("value.json");
        assert_eq!(read::<String>(&path).unwrap(), None);
        write(&path, &"first").unwrap();
        write(&path, &"a value").unwrap();
        assert_eq!(read::<String>(&path).unwrap().unwrap(), "a value");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "no temporary file is left");
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read::<String>(&path).unwrap_err().kind(), ErrorKind::Corrupt, "{length}");
            assert_eq!(fs::read(&path).unwrap(), whole[..length]);
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, &flipped).unwrap();
            assert_eq!(read::<String>(&path).unwrap_err().kind(), ErrorKind::Corrupt, "{at}");
        }
    }

    #[test]
    fn a_newer_layout_is_named() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("value.json");
        fs::write(&path, "{\"file_of\":\"deploykit-agent\",\"layout\":7,\"more\":1}\n?").unwrap();
        let error = read::<String>(&path).unwrap_err();
        assert_eq!(
            error.message(),
            "it was written by a newer version of the agent (layout 7; this one knows 1): use that version"
        );
    }

    #[test]
    fn a_value_that_cannot_be_written_leaves_the_old_one() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("value.json");
        write(&path, &"old").unwrap();
        // What is in the way of the temporary file.
        fs::create_dir(path.with_extension("new")).unwrap();
        assert!(write(&path, &"new").is_err());
        assert_eq!(read::<String>(&path).unwrap().unwrap(), "old");
    }
}
