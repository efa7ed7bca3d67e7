//! What goes into an image: paths, and what each is.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use deploykit_core::{ErrorKind, Result};

use super::recipe::CopyOptions;
use crate::dockerignore::clean;
use crate::error::{error, on_path};

const COPY: &str = "copy files into an image";

/// Paths without a leading slash, each after the folders that it lies in.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree(pub(super) BTreeMap<String, Entry>);

#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Folder,
    Link(String),
    /// The same file as another one, by its path in the image.
    HardLink(String),
    Bytes(Vec<u8>),
    File {
        path: PathBuf,
        stat: Stat,
    },
}

/// What tells whether a file is still the same, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) size: u64,
    pub(super) inode: (u64, u64),
    /// How many names it has here.
    pub(super) links: u64,
    pub(super) modified: (i64, i64),
    pub(super) changed: (i64, i64),
}

impl From<&Metadata> for Stat {
    fn from(m: &Metadata) -> Self {
        Self {
            size: m.len(),
            inode: (m.dev(), m.ino()),
            links: m.nlink(),
            modified: (m.mtime(), m.mtime_nsec()),
            changed: (m.ctime(), m.ctime_nsec()),
        }
    }
}

impl Tree {
    /// A path within the image: without a leading slash, and not outside.
    pub(super) fn inner_path(target: &str) -> Result<String> {
        let cleaned = clean(&format!("/{target}"));
        match cleaned.trim_start_matches('/') {
            "" => Err(error(ErrorKind::Invalid, COPY, "the root is no file; name one")),
            inner if inner.contains('\0') => {
                let wrong = error(ErrorKind::Invalid, COPY, "a path has no zero byte");
                Err(wrong.with("target", target.escape_default()))
            }
            inner => Ok(inner.to_owned()),
        }
    }

    /// Puts an entry at a path, and folders above it.
    pub(super) fn insert(&mut self, path: String, entry: Entry) -> Result<()> {
        let is_folder = |entry: &Entry| matches!(entry.content, Content::Folder);
        // Most often the folder right above is there, and then all are.
        for (slash, _) in path.rmatch_indices('/') {
            match self.0.get(&path[..slash]) {
                Some(above) if is_folder(above) => break,
                Some(_) => {
                    let wrong = error(ErrorKind::Invalid, COPY, "a file is put below another file");
                    return Err(wrong.with("target", path));
                }
                None => self.0.insert(path[..slash].to_owned(), Entry::folder()),
            };
        }
        if !is_folder(&entry) && self.0.get(&path).is_some_and(is_folder) {
            let below = format!("{path}/");
            if self.0.range(below.clone()..).next().is_some_and(|(p, _)| p.starts_with(&below)) {
                let wrong = error(ErrorKind::Invalid, COPY, "a file is put where a folder is");
                return Err(wrong.with("target", path));
            }
        }
        self.0.insert(path, entry);
        Ok(())
    }

    /// Lets what are names of one file here be names of one file in the image too: those after
    /// the first.
    pub(super) fn linked(&self) -> Cow<'_, Self> {
        let mut first: BTreeMap<(u64, u64), String> = BTreeMap::new();
        let mut links = Vec::new();
        for (path, entry) in &self.0 {
            let Content::File { stat, .. } = &entry.content else { continue };
            if stat.links < 2 {
                continue;
            }
            let target = first.entry(stat.inode).or_insert_with(|| path.clone());
            let is_alike = |other: &Entry| (other.mode, other.owner) == (entry.mode, entry.owner);
            if target != path && self.0.get(target).is_some_and(is_alike) {
                links.push((path.clone(), target.clone()));
            }
        }
        if links.is_empty() {
            return Cow::Borrowed(self);
        }
        let mut tree = self.clone();
        for (path, target) in links {
            if let Some(entry) = tree.0.get_mut(&path) {
                entry.content = Content::HardLink(target);
            }
        }
        Cow::Owned(tree)
    }

    /// Copies a file, or a folder with what is in it.
    pub(super) fn copy(
        &mut self,
        source: &Path,
        target: &str,
        options: &CopyOptions,
    ) -> Result<()> {
        let metadata = fs::metadata(source).map_err(on_path(COPY, source))?;
        if metadata.is_dir() {
            let target = clean(&format!("/{target}")).trim_start_matches('/').to_owned();
            return self.copy_folder(source, "", &target, options);
        }
        let entry = Entry::of(source, &metadata, options)?;
        self.insert(Self::inner_path(target)?, entry)
    }

    fn copy_folder(
        &mut self,
        root: &Path,
        inside: &str,
        target: &str,
        options: &CopyOptions,
    ) -> Result<()> {
        let folder = root.join(inside);
        let failed = on_path(COPY, &folder);
        // All at once: folders are not kept open while what is in them is walked.
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder).map_err(&failed)? {
            let entry = entry.map_err(&failed)?;
            let metadata = entry.metadata().map_err(on_path(COPY, &entry.path()))?;
            found.push((entry.file_name(), metadata));
        }
        for (name, metadata) in found {
            let path = folder.join(&name);
            let Some(name) = name.to_str() else {
                let wrong = error(ErrorKind::Invalid, COPY, "the name is not UTF-8; rename it");
                return Err(wrong.with("path", path.display()));
            };
            let inside = join(inside, name);
            let excluded = options.ignore.excludes(&inside);
            if metadata.is_dir() {
                if !excluded {
                    self.insert(
                        join(target, &inside),
                        Entry { owner: options.owner, ..Entry::folder() },
                    )?;
                }
                if !excluded || options.ignore.keeps_some() {
                    self.copy_folder(root, &inside, target, options)?;
                }
            } else if !excluded {
                self.insert(join(target, &inside), Entry::of(&path, &metadata, options)?)?;
            }
        }
        Ok(())
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

impl Entry {
    pub(super) fn folder() -> Self {
        Self { mode: 0o755, owner: (0, 0), content: Content::Folder }
    }

    /// A file or link as it is on disk. Of its mode only whether it can be executed counts: the
    /// rest is this machine's umask.
    pub(super) fn of(path: &Path, metadata: &Metadata, options: &CopyOptions) -> Result<Self> {
        let kind = metadata.file_type();
        let owner = options.owner;
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(on_path(COPY, path))?;
            let target = target.to_str().map(str::to_owned).ok_or_else(|| {
                error(ErrorKind::Invalid, COPY, "the link's target is not UTF-8")
                    .with("path", path.display())
            })?;
            return Ok(Self { mode: 0o777, owner, content: Content::Link(target) });
        }
        if !kind.is_file() {
            let wrong = "only files, folders and links can be copied, no device, pipe or socket";
            return Err(error(ErrorKind::Invalid, COPY, wrong).with("path", path.display()));
        }
        let usual = if metadata.mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        let mode = options.mode.unwrap_or(usual);
        let content = Content::File { path: path.to_owned(), stat: Stat::from(metadata) };
        Ok(Self { mode, owner, content })
    }

    /// The bytes that it holds.
    pub(super) fn size(&self) -> u64 {
        match &self.content {
            Content::Folder | Content::Link(_) | Content::HardLink(_) => 0,
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { stat, .. } => stat.size,
        }
    }
}
