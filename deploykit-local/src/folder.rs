//! The state folder: what lies where, whose it is, and that one supervisor serves it.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use deploykit_core::model::{AppName, VolumeName};
use deploykit_core::{Error, ErrorKind, OutputStream, Result};
use rustix::fs::{FlockOperation, flock};

use crate::error::{self, BACKEND};

/// Everything that a state folder may hold at its top.
const KNOWN: [&str; 10] = [
    "state.db",
    "state.db-wal",
    "state.db-journal",
    "supervisor.lock",
    "supervisor.sock",
    "supervisor.log",
    "executables",
    "instances",
    "logs",
    "volumes",
];

/// The paths of a state folder.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder at `path`, made with mode 0700 where it is missing.
    ///
    /// # Errors
    /// `Unauthorized` where it belongs to another user, is open to others' writing or cannot be
    /// made; `AlreadyExists` where it holds something that is not this library's.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |e| error::io("open the state folder", path, e);
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        // The canonical path: every client must mean the same folder, whatever link it came by.
        let path = fs::canonicalize(path).map_err(failed)?;
        let folder = Self { path };
        folder.check_owner()?;
        folder.check_content()?;
        Ok(folder)
    }

    /// The folder itself.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The SQLite file.
    pub(crate) fn database(&self) -> PathBuf {
        self.path.join("state.db")
    }

    /// What was written to the SQLite file lately.
    pub(crate) fn write_ahead_log(&self) -> PathBuf {
        self.path.join("state.db-wal")
    }

    /// The supervisor's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join("supervisor.sock")
    }

    /// What a detached supervisor writes.
    pub(crate) fn supervisor_log(&self) -> PathBuf {
        self.path.join("supervisor.log")
    }

    /// The store of executables.
    pub(crate) fn executables(&self) -> PathBuf {
        self.path.join("executables")
    }

    /// The output of an instance.
    pub(crate) fn log(&self, instance: &str, stream: OutputStream) -> PathBuf {
        let suffix = match stream {
            OutputStream::Stdout => "out",
            OutputStream::Stderr => "err",
        };
        self.path.join("logs").join(format!("{instance}.{suffix}"))
    }

    /// The files of an instance: configs, and links to its volumes.
    pub(crate) fn instance(&self, instance: &str) -> PathBuf {
        self.path.join("instances").join(instance)
    }

    /// The data of a volume; with a slot, that of one replica.
    pub(crate) fn volume(&self, app: &AppName, volume: &VolumeName, slot: Option<u32>) -> PathBuf {
        let name = match slot {
            Some(slot) => format!("{volume}.{slot}"),
            None => volume.to_string(),
        };
        self.volumes(app).join(name)
    }

    /// The volumes of an app.
    pub(crate) fn volumes(&self, app: &AppName) -> PathBuf {
        self.path.join("volumes").join(app.as_str())
    }

    /// Makes a folder below this one, for the owner alone.
    pub(crate) fn make(&self, path: &Path) -> Result<()> {
        make_private(path).map_err(|e| error::io("make a folder", path, e))
    }

    /// Calls `with` with a path to the socket that is short enough for a socket's address, however
    /// deep the folder lies.
    pub(crate) fn with_socket<T>(
        &self,
        with: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let folder = File::open(&self.path)?;
        with(&PathBuf::from(format!("/proc/self/fd/{}/supervisor.sock", folder.as_raw_fd())))
    }

    /// Takes the right to be the folder's one supervisor; `None` where another process has it.
    /// It is given back when dropped, or when the process ends in whatever way.
    pub(crate) fn lock(&self) -> Result<Option<Lock>> {
        let path = self.path.join("supervisor.lock");
        let failed = |e| error::io("lock the state folder", &path, e);
        loop {
            let file = File::options()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(e) => return Err(failed(e.into())),
            }
            // A supervisor that ended may have removed the file between our open and our lock.
            let ours = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).map(|m| m.ino()).ok() == Some(ours) {
                return Ok(Some(Lock { _file: file }));
            }
        }
    }

    /// Removes everything but volumes, and the folder too where there is none.
    pub(crate) fn clear(&self) -> io::Result<()> {
        for name in KNOWN.iter().filter(|name| **name != "volumes") {
            let path = self.path.join(name);
            let removed = match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
                Ok(_) => fs::remove_file(&path),
                Err(e) => Err(e),
            };
            if let Err(e) = removed
                && e.kind() != io::ErrorKind::NotFound
            {
                return Err(e);
            }
        }
        // Fails where something is in them: that is what shall stay.
        for app in fs::read_dir(self.path.join("volumes")).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(app.path());
        }
        let _ = fs::remove_dir(self.path.join("volumes"));
        let _ = fs::remove_dir(&self.path);
        Ok(())
    }

    fn check_owner(&self) -> Result<()> {
        let meta = fs::metadata(&self.path)
            .map_err(|e| error::io("open the state folder", &self.path, e))?;
        let me = rustix::process::getuid().as_raw();
        let refuse = |message: String| {
            let error = Error::new(ErrorKind::Unauthorized, "open the state folder", message);
            Err(error.on(BACKEND).with("path", self.path.display()))
        };
        if !meta.is_dir() {
            return refuse("it is no folder; choose another path".into());
        }
        if meta.uid() != me {
            return refuse(format!(
                "it belongs to user {}, and you are user {me}; choose another folder, or run this as its owner",
                meta.uid()
            ));
        }
        if meta.permissions().mode() & 0o022 != 0 {
            return refuse(format!(
                "others can write to it (mode {:o}); `chmod 700` it, or choose another folder",
                meta.permissions().mode() & 0o777
            ));
        }
        match fs::symlink_metadata(self.socket()) {
            Ok(socket) if socket.uid() != me => refuse(format!(
                "its socket belongs to user {}, and you are user {me}; stop that user's supervisor or choose another folder",
                socket.uid()
            )),
            _ => Ok(()),
        }
    }

    /// A folder that never was one of ours is not taken over.
    fn check_content(&self) -> Result<()> {
        let entries = fs::read_dir(&self.path)
            .map_err(|e| error::io("open the state folder", &self.path, e))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            if !KNOWN.iter().any(|known| name == *known) {
                let message = format!(
                    "it holds `{}`, which is not DeployKit's; choose an empty folder, or one that does not exist yet",
                    name.display()
                );
                let error = Error::new(ErrorKind::AlreadyExists, "open the state folder", message);
                return Err(error.on(BACKEND).with("path", self.path.display()));
            }
        }
        Ok(())
    }
}

/// Makes a folder, and those above it, for the owner alone.
pub(crate) fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Removes a folder with all in it; one that is not there is no error.
pub(crate) fn remove_all(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// The right to be the supervisor of a folder.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn one_lock_at_a_time_and_none_on_a_removed_file() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temp.path().join("a/b")).unwrap();
        assert_eq!(fs::metadata(folder.path()).unwrap().mode() & 0o777, 0o700);
        let lock = folder.lock().unwrap();
        assert!(lock.is_some());
        assert!(folder.lock().unwrap().is_none());
        drop(lock);
        assert!(folder.lock().unwrap().is_some());
    }

    #[test]
    fn what_is_not_ours_is_not_taken_over() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("thesis.txt"), "").unwrap();
        let error = Folder::open(temp.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(
            error.message(),
            "it holds `thesis.txt`, which is not DeployKit's; choose an empty folder, or one that does not exist yet"
        );
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = Folder::open(temp.path()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert_eq!(
            error.message(),
            "others can write to it (mode 777); `chmod 700` it, or choose another folder"
        );
    }

    #[test]
    fn another_users_folder_and_socket_are_refused() {
        if !rustix::process::getuid().is_root() {
            println!("skipped: only root can give files away");
            return;
        }
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("theirs");
        fs::create_dir(&folder).unwrap();
        std::os::unix::fs::chown(&folder, Some(4711), None).unwrap();
        let error = Folder::open(&folder).unwrap_err();
        assert_eq!(
            error.message(),
            "it belongs to user 4711, and you are user 0; choose another folder, or run this as its owner"
        );
        std::os::unix::fs::chown(&folder, Some(0), None).unwrap();
        fs::write(folder.join("supervisor.sock"), "").unwrap();
        std::os::unix::fs::chown(folder.join("supervisor.sock"), Some(4711), None).unwrap();
        let error = Folder::open(&folder).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(error.message().starts_with("its socket belongs to user 4711"), "{error}");
    }

    #[test]
    fn clearing_leaves_volumes_alone() {
        let temp = tempfile::tempdir().unwrap();
        let folder = Folder::open(&temp.path().join("f")).unwrap();
        let (app, volume) = (AppName::new("blog").unwrap(), VolumeName::new("data").unwrap());
        let data = folder.volume(&app, &volume, None);
        folder.make(&data).unwrap();
        fs::write(folder.database(), "").unwrap();
        folder.clear().unwrap();
        assert!(data.is_dir() && !folder.database().exists());
        fs::remove_dir(&data).unwrap();
        folder.clear().unwrap();
        assert!(!folder.path().exists());
    }
}
