//! Which folder, and how long its instances live.

use std::path::{Path, PathBuf};

use deploykit_core::{Error, ErrorKind, Problem, Result};

use crate::error::BACKEND;

/// How long instances live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lifetime {
    /// They outlive the program: a supervisor of its own process hosts them, which is the program
    /// itself, executed again. [`init`](crate::init) must be the first call in `main`.
    #[default]
    Detached,
    /// They live as long as the [`Local`](crate::Local) that hosts them within the program: for
    /// tests and for embedding.
    Program,
}

/// Where the local backend keeps its state, and how long its instances live.
///
/// ```
/// use deploykit_local::{Lifetime, LocalConfig};
/// let config = LocalConfig::from_url("local:///srv/apps")?;
/// assert_eq!(config, LocalConfig::new("/srv/apps"));
/// assert_eq!(config.lifetime, Lifetime::Detached);
/// # Ok::<(), deploykit_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LocalConfig {
    /// The state folder. It is made, for its owner alone, where it is missing.
    pub folder: PathBuf,
    /// The folder that holds the key of the state folder's secrets, which must not lie within the
    /// state folder.
    pub keys: PathBuf,
    /// How long instances live.
    pub lifetime: Lifetime,
}

impl LocalConfig {
    /// The state in `folder`, and its key in `$XDG_CONFIG_HOME/deploykit/keys` (`~/.config` where
    /// that is not set).
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let keys = base("XDG_CONFIG_HOME", ".config").join("deploykit/keys");
        Self { folder: folder.into(), keys, lifetime: Lifetime::default() }
    }

    /// From `local://` (the default folder) or `local:///an/absolute/path`.
    ///
    /// # Errors
    /// `Invalid` where it is neither.
    pub fn from_url(url: &str) -> Result<Self> {
        let rest = url.strip_prefix("local://").unwrap_or("?");
        if rest.is_empty() {
            return Ok(Self::default());
        }
        if Path::new(rest).is_absolute() {
            return Ok(Self::new(rest));
        }
        let fix = "write local:// for the default folder, or local:///an/absolute/path";
        let problem = Problem::new("url", format!("`{url}` names no state folder"), fix);
        Err(Error::invalid("open the local backend", vec![problem]).on(BACKEND))
    }

    /// Sets how long instances live.
    pub fn lifetime(mut self, lifetime: Lifetime) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets the folder of the key.
    pub fn keys(mut self, folder: impl Into<PathBuf>) -> Self {
        self.keys = folder.into();
        self
    }

    /// Refuses a key that would lie beside what it protects.
    pub(crate) fn check(&self) -> Result<()> {
        let place = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        if !place(&self.keys).starts_with(place(&self.folder)) {
            return Ok(());
        }
        let what = format!("{} lies within the state folder {}", self.keys.display(), self.folder.display());
        let problem = Problem::new("keys", what, "choose a folder outside of it");
        Err(Error::new(ErrorKind::Invalid, "open the local backend", "1 problem").on(BACKEND).with_problems(vec![problem]))
    }
}

/// The folder `$XDG_STATE_HOME/deploykit/local` (`~/.local/state` where that is not set).
impl Default for LocalConfig {
    fn default() -> Self {
        Self::new(base("XDG_STATE_HOME", ".local/state").join("deploykit/local"))
    }
}

/// A folder of the [XDG base directories](https://specifications.freedesktop.org/basedir-spec/latest/).
fn base(variable: &str, below_home: &str) -> PathBuf {
    match std::env::var_os(variable).map(PathBuf::from) {
        Some(path) if path.is_absolute() => path,
        _ => std::env::home_dir().unwrap_or_else(|| "/".into()).join(below_home),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn urls_name_the_folder() {
        assert_eq!(LocalConfig::from_url("local://").unwrap(), LocalConfig::default());
        assert_eq!(LocalConfig::from_url("local:///a/b").unwrap().folder, Path::new("/a/b"));
        for bad in ["local://a/b", "local:/a", "docker://"] {
            let error = LocalConfig::from_url(bad).unwrap_err();
            assert_eq!(
                error.problems()[0].to_string(),
                format!("url: `{bad}` names no state folder (write local:// for the default folder, or local:///an/absolute/path)")
            );
        }
    }

    #[test]
    fn the_key_must_lie_elsewhere() {
        assert!(LocalConfig::new("/a").keys("/a/b").check().is_err());
        assert!(LocalConfig::new("/a").keys("/ab").check().is_ok());
    }
}
