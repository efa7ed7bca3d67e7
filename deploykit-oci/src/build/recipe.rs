//! What an image is made of.

use std::collections::BTreeMap;
use std::path::Path;

use deploykit_core::{ErrorKind, Result};

use super::elf;
use super::tree::{Content, Entry, Tree};
use crate::digest::Digest;
use crate::dockerignore::DockerIgnore;
use crate::error::error;
use crate::layout::Layout;
use crate::spec::{Descriptor, Execution, Image, Platform};

/// What an image is made of: files, how it is run, and what it lies upon.
///
/// ```
/// use deploykit_oci::{Layout, Recipe};
/// # fn main() -> deploykit_core::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// let layout = Layout::open(folder.path())?;
/// let mut recipe = Recipe::binary("/bin/true")?.epoch(0);
/// recipe.execution.user = "65532:65532".to_owned();
/// let image = recipe.temporary_folder()?.build(&layout)?;
/// layout.tag("true:1", &image)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Recipe {
    /// What it runs on.
    pub platform: Platform,
    /// How it is run.
    pub execution: Execution,
    /// Free facts, put on the manifest.
    pub annotations: BTreeMap<String, String>,
    /// How its layers are compressed.
    pub compression: Compression,
    pub(super) epoch: u64,
    pub(super) base: Option<Base>,
    pub(super) tree: Tree,
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Taken by every engine.
    #[default]
    Gzip,
    /// Faster and smaller; taken by containerd, and by Docker from 23.0.
    Zstd,
}

impl Compression {
    /// The compressor's own number for how hard it tries.
    pub fn level(self) -> i32 {
        match self {
            // Some per cent larger than at 6, in half the time.
            Self::Gzip => 2,
            Self::Zstd => 3,
        }
    }
}

/// How files are copied into an image.
#[derive(Clone, Debug, Default)]
pub struct CopyOptions {
    /// The user and the group that they belong to.
    pub owner: (u32, u32),
    /// The mode of the files; none for 0755 where they can be executed here and 0644 else.
    pub mode: Option<u32>,
    /// What of a folder is left out.
    pub ignore: DockerIgnore,
}

/// The image that another one lies upon.
#[derive(Clone, Debug)]
pub(super) struct Base {
    pub(super) image: Image,
    pub(super) layers: Vec<Descriptor>,
}

impl Recipe {
    /// An image with nothing in it. All times in it are `SOURCE_DATE_EPOCH` of the environment,
    /// 1970 where that is not set (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub fn scratch(platform: Platform) -> Self {
        let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
        Self {
            platform,
            execution: Execution::default(),
            annotations: BTreeMap::new(),
            compression: Compression::default(),
            epoch: epoch.unwrap_or(0),
            base: None,
            tree: Tree::default(),
        }
    }

    /// An image upon another one of the same store, with how that is run.
    ///
    /// # Errors
    /// `NotFound` where the store has no such manifest or not all its layers, `Invalid` where it
    /// is of another platform.
    pub fn upon(layout: &Layout, base: &Digest, platform: Platform) -> Result<Self> {
        let manifest = layout.manifest(base)?;
        let image = layout.image(&manifest.config.digest)?;
        let wrong =
            |kind, message: &str| error(kind, "build upon a base", message).with("base", base);
        let found = &image.platform;
        if (&found.os, &found.architecture) != (&platform.os, &platform.architecture) {
            return Err(wrong(ErrorKind::Invalid, "it is of another platform")
                .with("wanted", format!("{}/{}", platform.os, platform.architecture))
                .with("found", format!("{}/{}", found.os, found.architecture)));
        }
        if let Some(missing) = manifest.layers.iter().find(|l| !layout.contains(l)) {
            let missing = &missing.digest;
            return Err(wrong(ErrorKind::NotFound, "a layer is missing; pull it again")
                .with("layer", missing));
        }
        let mut recipe = Self::scratch(platform);
        recipe.execution = image.config.clone();
        recipe.base = Some(Base { image, layers: manifest.layers });
        Ok(recipe)
    }

    /// An image of one program: a static one by itself, a dynamically linked one with its loader
    /// and the libraries of this machine that it names. What a program opens by name while it
    /// runs is not seen.
    ///
    /// # Errors
    /// `NotFound` where the file is missing or libraries are, all of them named; `Invalid` where
    /// it is no Linux program.
    pub fn binary(path: impl AsRef<Path>) -> Result<Self> {
        let program = elf::Program::read(path.as_ref())?;
        Self::scratch(program.platform.clone()).put(path.as_ref(), &program)
    }

    /// Adds a program to `/usr/local/bin`, with what [`Recipe::binary`] adds, and makes it what is
    /// run.
    ///
    /// # Errors
    /// As [`Recipe::binary`]; `Invalid` where it is for another platform.
    pub fn program(self, path: impl AsRef<Path>) -> Result<Self> {
        let program = elf::Program::read(path.as_ref())?;
        if !program.platform.serves(&self.platform) {
            let message = "the program is for another platform than the image";
            return Err(error(ErrorKind::Invalid, "add a program to an image", message)
                .with("path", path.as_ref().display())
                .with("wanted", &self.platform)
                .with("found", &program.platform));
        }
        self.put(path.as_ref(), &program)
    }

    fn put(mut self, path: &Path, program: &elf::Program) -> Result<Self> {
        let name = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
        let target = format!("usr/local/bin/{name}");
        self.tree.copy(path, &target, &CopyOptions::default())?;
        for (inner, library) in &program.libraries {
            self.tree.copy(library, inner, &CopyOptions::default())?;
        }
        self.execution.entrypoint = vec![format!("/{target}")];
        self.execution.cmd.clear();
        Ok(self)
    }

    /// All times in the image, in seconds since 1970.
    pub fn epoch(mut self, seconds: u64) -> Self {
        self.epoch = seconds;
        self
    }

    /// Copies a file, or what is in a folder, to a path of the image, owned by root. Files are
    /// 0755 where they can be executed and 0644 else, folders 0755; links stay links.
    ///
    /// # Errors
    /// `NotFound` and `Unauthorized` for what cannot be read; `Invalid` for devices, pipes and
    /// sockets, and names that are not UTF-8.
    pub fn copy(self, source: impl AsRef<Path>, target: &str) -> Result<Self> {
        self.copy_with(source, target, &CopyOptions::default())
    }

    /// Like [`Recipe::copy`], but as the options say.
    ///
    /// # Errors
    /// As [`Recipe::copy`].
    pub fn copy_with(
        mut self,
        source: impl AsRef<Path>,
        target: &str,
        options: &CopyOptions,
    ) -> Result<Self> {
        self.tree.copy(source.as_ref(), target, options)?;
        Ok(self)
    }

    /// A file of some bytes.
    ///
    /// # Errors
    /// `Invalid` where the path is no file's.
    pub fn file(
        mut self,
        target: &str,
        mode: u32,
        owner: (u32, u32),
        bytes: impl Into<Vec<u8>>,
    ) -> Result<Self> {
        let content = Content::Bytes(bytes.into());
        self.tree.insert(Tree::inner_path(target)?, Entry { mode, owner, content })?;
        Ok(self)
    }

    /// A folder.
    ///
    /// # Errors
    /// `Invalid` where the path is a file's.
    pub fn folder(mut self, target: &str, mode: u32, owner: (u32, u32)) -> Result<Self> {
        let content = Content::Folder;
        self.tree.insert(Tree::inner_path(target)?, Entry { mode, owner, content })?;
        Ok(self)
    }

    /// `/tmp`, where everybody may write.
    ///
    /// # Errors
    /// `Invalid` where it is a file already.
    pub fn temporary_folder(self) -> Result<Self> {
        self.folder("/tmp", 0o1777, (0, 0))
    }

    /// This machine's list of certificate authorities, where programs look for it.
    ///
    /// # Errors
    /// `NotFound` where this machine has none.
    pub fn certificates(self) -> Result<Self> {
        let path = "/etc/ssl/certs/ca-certificates.crt";
        self.copy(path, path)
    }

    /// This machine's time zones, where programs look for them.
    ///
    /// # Errors
    /// `NotFound` where this machine has none.
    pub fn time_zones(self) -> Result<Self> {
        let path = "/usr/share/zoneinfo";
        self.copy(path, path)
    }
}

/// Seconds since 1970 as `1970-01-01T00:00:00Z`, in the Gregorian calendar.
pub(super) fn rfc3339(seconds: u64) -> String {
    let (mut days, time) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", days + 1)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn seconds_are_dates() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_798_761_599), "2026-12-31T23:59:59Z");
    }
}
