//! Executables, kept by the digest of their content: what an instance runs stays what it was
//! when the program is built again.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256, digest};
use deploykit_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};

use crate::error;
use crate::process::boot_id;

const ALGORITHM: &str = "sha256:";
/// A file that was changed less than this before it was read might be changed again without its
/// times showing it: its digest is not remembered.
const CLOCK_STEP: Duration = Duration::from_millis(50);
/// How often a file is read anew that is changing while it is read.
const TRIES: usize = 3;

/// The store: `<folder>/<sha256>` holds the content, `<folder>/known/<path>` what is known of a
/// file without reading it.
///
/// Any number of processes may use one store at once. The supervisor brings what instances run to
/// the disk.
#[derive(Clone, Debug)]
pub(crate) struct Executables {
    folder: PathBuf,
}

/// What must be the same for a file to be unchanged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Fingerprint {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Serialize, Deserialize)]
struct Known {
    /// Copies are not on the disk at once: what is known may not be true after a power cut.
    boot: String,
    path: PathBuf,
    fingerprint: Fingerprint,
    digest: String,
}

impl Fingerprint {
    fn of(meta: &fs::Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl Executables {
    /// The store in `folder`, which is made when something is put in.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Puts a copy of the executable at `source` in, and returns its digest (`sha256:…`). One
    /// that is unchanged since the last time is not read again. Blocks.
    pub(crate) fn put(&self, source: &Path) -> Result<String> {
        let failed = |e: io::Error| error::io("keep an executable", source, e);
        let mut file = File::open(source).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => Error::new(
                ErrorKind::NotFound,
                "keep an executable",
                format!(
                    "there is no file {}; build it first, or correct the path",
                    source.display()
                ),
            ),
            _ => failed(e),
        })?;
        let mut meta = file.metadata().map_err(failed)?;
        check_executable(source, &meta)?;
        let path = fs::canonicalize(source).map_err(failed)?;
        let entry = self.entry(&path);
        if let Some(digest) = self.known(&entry, &path, &Fingerprint::of(&meta)) {
            return Ok(digest);
        }
        fs::create_dir_all(self.folder.join("known"))
            .map_err(|e| error::io("keep an executable", &self.folder, e))?;
        for _ in 0..TRIES {
            let read_at = SystemTime::now();
            let digest = self.copy(&mut file).map_err(failed)?;
            file = File::open(&path).map_err(failed)?;
            let now = file.metadata().map_err(failed)?;
            let fingerprint = Fingerprint::of(&now);
            if fingerprint == Fingerprint::of(&meta) {
                self.remember(&entry, path, fingerprint, &digest, read_at);
                return Ok(digest);
            }
            meta = now;
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "keep an executable",
            format!("{} is being written; try again when its build has ended", source.display()),
        ))
    }

    /// Where the content of a digest is.
    pub(crate) fn path(&self, digest: &str) -> PathBuf {
        self.folder.join(digest.strip_prefix(ALGORITHM).unwrap_or(digest))
    }

    /// Removes what is not in `keep` and was not put in within `grace`; returns the digests.
    /// The grace spares what somebody has prepared and not yet applied.
    pub(crate) fn collect(
        &self,
        keep: &BTreeSet<String>,
        grace: Duration,
    ) -> io::Result<Vec<String>> {
        let mut removed = Vec::new();
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(removed),
            Err(e) => return Err(e),
        };
        for entry in entries {
            let entry = entry?;
            let Ok(meta) = entry.metadata() else { continue };
            let digest = format!("{ALGORITHM}{}", entry.file_name().to_string_lossy());
            let age = meta.modified()?.elapsed().unwrap_or(Duration::ZERO);
            if meta.is_file() && age >= grace && !keep.contains(&digest) {
                fs::remove_file(entry.path())?;
                removed.push(digest);
            }
        }
        Ok(removed)
    }

    fn entry(&self, path: &Path) -> PathBuf {
        let name = digest(&SHA256, path.as_os_str().as_encoded_bytes());
        self.folder.join("known").join(hex(&name.as_ref()[..16]))
    }

    fn known(&self, entry: &Path, path: &Path, fingerprint: &Fingerprint) -> Option<String> {
        let known: Known = serde_json::from_slice(&fs::read(entry).ok()?).ok()?;
        let boot = boot_id().ok()?;
        if known.boot != boot || known.path != path || known.fingerprint != *fingerprint {
            return None;
        }
        // Using it renews its time, which is what the grace of `collect` goes by.
        let kept = File::open(self.path(&known.digest)).ok()?;
        kept.set_modified(SystemTime::now()).ok()?;
        Some(known.digest)
    }

    /// A lost or damaged entry only means that the file is read again, so nothing here is an error.
    fn remember(
        &self,
        entry: &Path,
        path: PathBuf,
        fingerprint: Fingerprint,
        digest: &str,
        read_at: SystemTime,
    ) {
        let changed = fingerprint.modified.max(fingerprint.changed);
        let nanos =
            |(seconds, nanos): (i64, i64)| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        let read_at =
            read_at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_nanos() as i128);
        if read_at - nanos(changed) < CLOCK_STEP.as_nanos() as i128 {
            return;
        }
        let Ok(boot) = boot_id() else { return };
        let known = Known { boot, path, fingerprint, digest: digest.to_owned() };
        let Ok(text) = serde_json::to_vec(&known) else { return };
        let temporary = self.temporary("known/");
        if fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, entry)).is_err() {
            let _ = fs::remove_file(&temporary);
        }
    }

    fn temporary(&self, prefix: &str) -> PathBuf {
        self.folder.join(format!("{prefix}.{}-{:016x}", std::process::id(), fastrand::u64(..)))
    }

    /// Copies and digests in one pass; the copy appears under its digest whole or not at all.
    fn copy(&self, source: &mut File) -> io::Result<String> {
        let temporary = self.temporary("");
        let result = self.copy_to(source, &temporary);
        if result.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        result
    }

    fn copy_to(&self, source: &mut File, temporary: &Path) -> io::Result<String> {
        let mut target =
            OpenOptions::new().write(true).create_new(true).mode(0o500).open(temporary)?;
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; 256 << 10];
        loop {
            let read = source.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            context.update(&buffer[..read]);
            target.write_all(&buffer[..read])?;
        }
        let digest = format!("{ALGORITHM}{}", hex(context.finish().as_ref()));
        target.set_permissions(fs::Permissions::from_mode(0o500))?;
        drop(target);
        // One that is there already is replaced: this one is known to be whole.
        fs::rename(temporary, self.path(&digest))?;
        Ok(digest)
    }
}

/// Refuses what is no executable file.
fn check_executable(path: &Path, meta: &fs::Metadata) -> Result<()> {
    let what = if !meta.is_file() {
        "is no file"
    } else if meta.permissions().mode() & 0o111 == 0 {
        "is not executable; `chmod +x` it, or correct the path"
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Invalid, "keep an executable", format!("{} {what}", path.display())))
}

/// Bytes as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn program(folder: &Path, content: &str) -> PathBuf {
        let path = folder.join("program");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        let old = SystemTime::now() - Duration::from_secs(60);
        File::open(&path).unwrap().set_modified(old).unwrap();
        path
    }

    #[test]
    fn a_rebuilt_program_is_another_and_the_old_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let store = Executables::new(folder.path().join("store"));
        let path = program(folder.path(), "one");
        let one = store.put(&path).unwrap();
        assert_eq!(one, format!("sha256:{}", hex(digest(&SHA256, b"one").as_ref())));
        assert_eq!(store.put(&path).unwrap(), one);
        program(folder.path(), "two");
        let two = store.put(&path).unwrap();
        assert_ne!(one, two);
        assert_eq!(fs::read(store.path(&one)).unwrap(), b"one");
        assert_eq!(fs::metadata(store.path(&two)).unwrap().mode() & 0o777, 0o500);
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let store = Executables::new(folder.path().join("store"));
        let path = program(folder.path(), "one");
        std::thread::sleep(CLOCK_STEP * 2);
        let digest = store.put(&path).unwrap();
        // What the store holds is taken for granted only where the file was not read.
        let kept = store.path(&digest);
        fs::remove_file(&kept).unwrap();
        fs::write(&kept, "not read").unwrap();
        store.put(&path).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"not read");
        // The same size and times, another file: read.
        let other = folder.path().join("other");
        fs::copy(&path, &other).unwrap();
        fs::rename(&other, &path).unwrap();
        store.put(&path).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), b"one");
    }

    #[test]
    fn what_is_missing_or_not_executable_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let store = Executables::new(folder.path().join("store"));
        let missing = store.put(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert_eq!(
            missing.message(),
            format!(
                "there is no file {}/missing; build it first, or correct the path",
                folder.path().display()
            )
        );
        let path = program(folder.path(), "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let plain = store.put(&path).unwrap_err();
        assert_eq!(
            plain.message(),
            format!("{} is not executable; `chmod +x` it, or correct the path", path.display())
        );
        assert_eq!(
            store.put(folder.path()).unwrap_err().message(),
            format!("{} is no file", folder.path().display())
        );
    }

    #[test]
    fn collection_spares_the_kept_and_the_new() {
        let folder = tempfile::tempdir().unwrap();
        let store = Executables::new(folder.path().join("store"));
        let one = store.put(&program(folder.path(), "one")).unwrap();
        let two = store.put(&program(folder.path(), "two")).unwrap();
        let keep = BTreeSet::from([two.clone()]);
        assert_eq!(store.collect(&keep, Duration::from_secs(600)).unwrap(), [""; 0]);
        let removed = store.collect(&keep, Duration::ZERO).unwrap();
        assert_eq!(removed, std::slice::from_ref(&one));
        assert!(store.path(&two).exists() && !store.path(&one).exists());
    }

    #[test]
    fn processes_that_put_the_same_in_at_once_are_all_right() {
        let folder = tempfile::tempdir().unwrap();
        let store = Executables::new(folder.path().join("store"));
        let path = program(folder.path(), &"x".repeat(1 << 20));
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(|| store.put(&path).unwrap())).collect();
            let digests: BTreeSet<String> = all.into_iter().map(|t| t.join().unwrap()).collect();
            assert_eq!(digests.len(), 1);
        });
        let files = fs::read_dir(folder.path().join("store")).unwrap().count();
        assert_eq!(files, 2, "the content and the folder `known`, no temporary file");
    }
}
