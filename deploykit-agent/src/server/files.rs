//! Files of secrets, in folders that instances mount.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, fchown};
use std::path::Path;

use deploykit_core::{Error, ErrorKind, Result};

use crate::control::SecretFile;
use crate::error::{self, BACKEND};

/// File systems that are nowhere but in memory ([statfs(2)](https://man7.org/linux/man-pages/man2/statfs.2.html)).
const IN_MEMORY: [i128; 2] = [0x0102_1994, 0x8584_58f6];

/// See [`Client::write_files`](crate::control::Client::write_files).
pub(super) fn write(folder: &Path, files: &[SecretFile]) -> Result<()> {
    check_names(files.iter().map(|file| &file.name))?;
    let kind = rustix::fs::statfs(folder)
        .map_err(|e| error::io("write files of secrets", folder, e.into()))?
        .f_type;
    if !IN_MEMORY.contains(&i128::from(kind)) {
        let message = "the folder is on a disk, where secrets must not come; mount a tmpfs there";
        let error = Error::new(ErrorKind::Unsupported, "write files of secrets", message);
        return Err(error.on(BACKEND).with("path", folder.display()));
    }
    for file in files {
        let temporary = folder.join(format!(".{}.new", file.name));
        let written = write_one(&temporary, file)
            .and_then(|()| fs::rename(&temporary, folder.join(&file.name)));
        if let Err(e) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error::io("write a file of a secret", &folder.join(&file.name), e));
        }
    }
    Ok(())
}

fn write_one(path: &Path, secret: &SecretFile) -> io::Result<()> {
    remove_one(path)?;
    let mut file = File::options().write(true).create_new(true).mode(0o400).open(path)?;
    file.write_all(secret.value.value().expose())?;
    fchown(&file, Some(secret.uid), Some(secret.gid))
}

/// See [`Client::list_files`](crate::control::Client::list_files).
pub(super) fn list(folder: &Path) -> Result<Vec<String>> {
    let failed = |e| error::io("list files of secrets", folder, e);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.extend(entry.map_err(failed)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// See [`Client::remove_files`](crate::control::Client::remove_files).
pub(super) fn remove(folder: &Path, names: &BTreeSet<String>) -> Result<()> {
    check_names(names)?;
    for name in names {
        let path = folder.join(name);
        remove_one(&path).map_err(|e| error::io("remove a file of a secret", &path, e))?;
    }
    Ok(())
}

fn remove_one(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn check_names<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    for name in names {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            let message = format!("`{}` is no name of a file", name.escape_debug());
            let error = Error::new(ErrorKind::Invalid, "name a file of a secret", message);
            return Err(error.on(BACKEND));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::MetadataExt as _;

    use deploykit_core::SecretValue;

    use super::*;
    use crate::wire::SecretText;

    fn file(name: &str, value: &str) -> SecretFile {
        let me = rustix::process::getuid().as_raw();
        let gid = rustix::process::getgid().as_raw();
        let value = SecretText::from(&SecretValue::new(value));
        SecretFile { name: name.to_owned(), value, uid: me, gid }
    }

    #[test]
    fn files_are_for_their_user_alone_and_in_memory_alone() {
        let temp = tempfile::tempdir_in("/dev/shm").unwrap();
        write(temp.path(), &[file("db", "old"), file("key", "k")]).unwrap();
        write(temp.path(), &[file("db", "hunter2")]).unwrap();
        let path = temp.path().join("db");
        assert_eq!(fs::read(&path).unwrap(), b"hunter2");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o400);
        assert_eq!(list(temp.path()).unwrap(), ["db", "key"]);
        remove(temp.path(), &["db".to_owned(), "none".to_owned()].into()).unwrap();
        assert_eq!(list(temp.path()).unwrap(), ["key"]);

        for name in ["", "a/b", "..", ".db.new"] {
            let refused = write(temp.path(), &[file("fine", "x"), file(name, "x")]).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Invalid, "{name}");
        }
        assert_eq!(list(temp.path()).unwrap(), ["key"], "nothing of a refused call is done");
        let missing = write(&temp.path().join("none"), &[file("db", "x")]).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);

        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let refused = write(disk.path(), &[file("db", "hunter2")]).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported);
        assert_eq!(fs::read_dir(disk.path()).unwrap().count(), 0);
    }
}
