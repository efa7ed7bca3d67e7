//! Giving instances their secrets: files of mode 0400 in memory, gone with the instance.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use deploykit_core::model::SecretName;
use deploykit_core::{Error, ErrorKind, Result, SecretValue};

use crate::error::{self, BACKEND};
use crate::folder::{make_private, remove_all};

/// The number by which the kernel knows a file system in memory
/// ([statfs(2)](https://man7.org/linux/man-pages/man2/statfs.2.html)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// Where one state folder's instances find their secrets.
#[derive(Clone, Debug)]
pub(crate) struct Delivery {
    folder: PathBuf,
    in_memory: bool,
}

impl Delivery {
    /// Chooses the place: the user's runtime folder, shared memory, or else the state folder.
    pub(crate) fn new(folder_id: &str, state_folder: &Path) -> Self {
        let user = rustix::process::getuid().as_raw();
        let places = [PathBuf::from(format!("/run/user/{user}")), PathBuf::from("/dev/shm")];
        match places.into_iter().find(|place| in_memory(place)) {
            Some(place) => Self {
                folder: place.join(format!("deploykit-{user}-{folder_id}")),
                in_memory: true,
            },
            None => {
                Self { folder: state_folder.join("instances").join(".secrets"), in_memory: false }
            }
        }
    }

    /// Whether it is a file system in memory. Where it is not, values lie on the disk in the clear
    /// while an instance runs; the supervisor warns of it.
    pub(crate) fn in_memory(&self) -> bool {
        self.in_memory
    }

    /// The folder of one instance's secrets.
    pub(crate) fn of(&self, instance: &str) -> PathBuf {
        self.folder.join(instance)
    }

    /// Writes the secrets of an instance; what it had before is gone.
    ///
    /// # Errors
    /// `AlreadyExists` where the place is taken by somebody else.
    pub(crate) fn write(
        &self,
        instance: &str,
        secrets: &[(SecretName, SecretValue)],
    ) -> Result<()> {
        let folder = self.of(instance);
        let failed = |e| error::io("give an instance its secrets", &folder, e);
        self.check()?;
        remove_all(&folder).map_err(failed)?;
        if secrets.is_empty() {
            return Ok(());
        }
        make_private(&folder).map_err(failed)?;
        for (name, value) in secrets {
            fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o400)
                .open(folder.join(name.as_str()))
                .and_then(|mut file| file.write_all(value.expose()))
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Removes the secrets of an instance.
    pub(crate) fn remove(&self, instance: &str) -> io::Result<()> {
        remove_all(&self.of(instance))
    }

    /// Removes what is there of instances that `keep` says no to.
    pub(crate) fn retain(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(&keep) {
                remove_all(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Removes the place itself.
    pub(crate) fn clear(&self) -> io::Result<()> {
        remove_all(&self.folder)
    }

    /// In a folder that everybody can write to, somebody else may have been first.
    fn check(&self) -> Result<()> {
        let failed = |e| error::io("give an instance its secrets", &self.folder, e);
        make_private(&self.folder).map_err(failed)?;
        let meta = fs::symlink_metadata(&self.folder).map_err(failed)?;
        let private = meta.is_dir()
            && meta.uid() == rustix::process::getuid().as_raw()
            && meta.permissions().mode() & 0o077 == 0;
        if private {
            return Ok(());
        }
        let message = "the place for secrets is taken by somebody else; remove it";
        let error = Error::new(ErrorKind::AlreadyExists, "give an instance its secrets", message);
        Err(error.on(BACKEND).with("path", self.folder.display()))
    }
}

/// Whether `path` is a folder in memory that this user can write to.
fn in_memory(path: &Path) -> bool {
    let tmpfs =
        rustix::fs::statfs(path).is_ok_and(|fs| i128::from(fs.f_type) == i128::from(TMPFS_MAGIC));
    tmpfs
        && rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn files_are_private_and_go_with_the_instance() {
        let temp = tempfile::tempdir().unwrap();
        let delivery = Delivery { folder: temp.path().join("d"), in_memory: false };
        let secret = (SecretName::new("db").unwrap(), SecretValue::new("hunter2"));
        delivery.write("a-1", std::slice::from_ref(&secret)).unwrap();
        delivery.write("a-1", std::slice::from_ref(&secret)).unwrap();
        delivery.write("a-2", std::slice::from_ref(&secret)).unwrap();
        delivery.write("a-3", &[]).unwrap();
        assert!(!delivery.of("a-3").exists());
        let file = delivery.of("a-1").join("db");
        assert_eq!(fs::read(&file).unwrap(), b"hunter2");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o400);
        assert_eq!(fs::metadata(delivery.of("a-1")).unwrap().mode() & 0o777, 0o700);
        delivery.retain(|id| id == "a-1").unwrap();
        assert!(file.exists() && !delivery.of("a-2").exists());
        delivery.remove("a-1").unwrap();
        assert!(!file.exists());
        delivery.clear().unwrap();
        assert!(!delivery.folder.exists());
    }

    #[test]
    fn a_place_that_others_can_read_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        fs::set_permissions(temp.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let delivery = Delivery { folder: temp.path().to_owned(), in_memory: false };
        assert_eq!(delivery.write("a-1", &[]).unwrap_err().kind(), ErrorKind::AlreadyExists);
    }
}
