//! Secrets sealed by a key that is not kept where they are.
//!
//! By AES-256-GCM ([NIST SP 800-38D](https://doi.org/10.6028/NIST.SP.800-38D)), bound to app, name
//! and version, so that a value moved to another row does not open.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{Error, ErrorKind, Result, SecretValue};
use zeroize::Zeroizing;

use crate::error::{self, BACKEND};

const KEY_LEN: usize = 32;

/// The key of one store of secrets, kept in a file of its own for one user.
///
/// ```
/// use deploykit_agent::seal::Key;
/// use deploykit_core::{SecretValue, model::{AppName, SecretName}};
/// # let temporary = tempfile::tempdir().unwrap();
/// # let keys = temporary.path().join("keys");
/// let key = Key::open(&keys, "blog", true)?;
/// let (app, name) = (AppName::new("blog")?, SecretName::new("db")?);
/// let sealed = key.seal(&app, &name, 1, &SecretValue::new("hunter2"))?;
/// assert_eq!(key.open_sealed(&app, &name, 1, &sealed)?.expose(), b"hunter2");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Key(LessSafeKey);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    /// Where the key with this id is, in a folder of keys.
    pub fn path(keys: &Path, id: &str) -> PathBuf {
        keys.join(format!("{id}.key"))
    }

    /// Reads a key; makes one, and the folder of keys, where there is none and `may_make` says so.
    ///
    /// # Errors
    /// `NotFound` where it is missing and secrets are stored that only it opens; `Unauthorized`
    /// where others could have read it.
    pub fn open(keys: &Path, id: &str, may_make: bool) -> Result<Self> {
        let path = Self::path(keys, id);
        match fs::metadata(&path) {
            Ok(meta) => Self::read(&path, &meta),
            Err(e) if e.kind() == io::ErrorKind::NotFound && may_make => Self::make(&path),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let message = "the key is missing, and the secrets cannot be read without it: \
                    put the key file back, or delete the secrets and set them anew";
                let error = Error::new(ErrorKind::NotFound, "read the key of the secrets", message);
                Err(error.on(BACKEND).with("path", path.display()))
            }
            Err(e) => Err(error::io("read the key of the secrets", &path, e)),
        }
    }

    fn read(path: &Path, meta: &fs::Metadata) -> Result<Self> {
        let refuse = |kind, message: &str| {
            Err(Error::new(kind, "read the key of the secrets", message)
                .on(BACKEND)
                .with("path", path.display()))
        };
        if meta.uid() != rustix::process::getuid().as_raw()
            || meta.permissions().mode() & 0o077 != 0
        {
            return refuse(
                ErrorKind::Unauthorized,
                "it must belong to you and be readable by you alone; `chmod 600` it, and rotate the secrets if \
                 others could have read it",
            );
        }
        let bytes = Zeroizing::new(
            fs::read(path).map_err(|e| error::io("read the key of the secrets", path, e))?,
        );
        match UnboundKey::new(&AES_256_GCM, &bytes) {
            Ok(key) => Ok(Self(LessSafeKey::new(key))),
            Err(_) => {
                refuse(ErrorKind::Corrupt, "it is no key of 32 bytes; put the right file back")
            }
        }
    }

    /// Appears under its name whole or not at all; never replaces a key.
    fn make(path: &Path) -> Result<Self> {
        let failed = |e| error::io("make the key of the secrets", path, e);
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let mut bytes = Zeroizing::new(vec![0; KEY_LEN]);
        rand::fill(&mut bytes).map_err(|_| failed(io::Error::other("no random numbers")))?;
        let temporary = path.with_extension(format!("{:016x}", fastrand::u64(..)));
        let written = fs::File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()))
            .and_then(|()| fs::hard_link(&temporary, path))
            .and_then(|()| fs::File::open(folder)?.sync_all());
        let _ = fs::remove_file(&temporary);
        written.map_err(failed)?;
        Self::read(path, &fs::metadata(path).map_err(failed)?)
    }

    /// Encrypts a value as a version of a secret.
    ///
    /// # Errors
    /// `Failed` where the system has no random numbers.
    pub fn seal(
        &self,
        app: &AppName,
        name: &SecretName,
        version: u64,
        value: &SecretValue,
    ) -> Result<Vec<u8>> {
        let failed =
            || Error::new(ErrorKind::Failed, "encrypt a secret", "the cipher refused").on(BACKEND);
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| failed())?;
        let mut sealed = Zeroizing::new(value.expose().to_vec());
        let tag = self
            .0
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                aad(app, name, version),
                &mut sealed,
            )
            .map_err(|_| failed())?;
        Ok([&nonce, sealed.as_slice(), tag.as_ref()].concat())
    }

    /// Decrypts the value of that version of that secret.
    ///
    /// # Errors
    /// `Corrupt` where it was sealed by another key, as something else, or was damaged.
    pub fn open_sealed(
        &self,
        app: &AppName,
        name: &SecretName,
        version: u64,
        sealed: &[u8],
    ) -> Result<SecretValue> {
        let failed = || {
            let message = format!(
                "{name}@{version} does not open: the key is another one, or the value was damaged"
            );
            Error::new(ErrorKind::Corrupt, "decrypt a secret", message).on(BACKEND).with("app", app)
        };
        let (nonce, rest) = sealed.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut buffer = Zeroizing::new(rest.to_vec());
        let value = self
            .0
            .open_in_place(nonce, aad(app, name, version), &mut buffer)
            .map_err(|_| failed())?;
        Ok(SecretValue::new(&*value))
    }
}

fn aad(app: &AppName, name: &SecretName, version: u64) -> Aad<String> {
    Aad::from(format!("{app}/{name}@{version}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn names() -> (AppName, SecretName) {
        (AppName::new("blog").unwrap(), SecretName::new("db").unwrap())
    }

    #[test]
    fn a_value_opens_only_where_it_was_sealed() {
        let temp = tempfile::tempdir().unwrap();
        let (app, name) = names();
        let key = Key::open(temp.path(), "f1", true).unwrap();
        let sealed = key.seal(&app, &name, 1, &SecretValue::new("hunter2")).unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_ne!(
            sealed,
            key.seal(&app, &name, 1, &SecretValue::new("hunter2")).unwrap(),
            "a nonce of its own"
        );
        let again = Key::open(temp.path(), "f1", false).unwrap();
        assert_eq!(again.open_sealed(&app, &name, 1, &sealed).unwrap().expose(), b"hunter2");
        assert_eq!(
            again.open_sealed(&app, &name, 2, &sealed).unwrap_err().kind(),
            ErrorKind::Corrupt
        );
        let other = SecretName::new("other").unwrap();
        assert!(again.open_sealed(&app, &other, 1, &sealed).is_err());
        assert!(again.open_sealed(&app, &name, 1, &sealed[..5]).is_err());
        let foreign = Key::open(temp.path(), "f2", true).unwrap();
        assert!(foreign.open_sealed(&app, &name, 1, &sealed).is_err());
        assert_eq!(format!("{key:?}"), "Key(…)");
    }

    #[test]
    fn a_missing_open_or_damaged_key_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let missing = Key::open(temp.path(), "f1", false).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
        assert!(missing.message().contains("put the key file back"), "{missing}");
        Key::open(temp.path(), "f1", true).unwrap();
        let file = Key::path(temp.path(), "f1");
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "no temporary file is left");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Key::open(temp.path(), "f1", true).unwrap_err().kind(), ErrorKind::Unauthorized);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "short").unwrap();
        assert_eq!(Key::open(temp.path(), "f1", true).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
