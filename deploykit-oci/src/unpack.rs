//! Images as folders: layers one upon the other, to
//! <https://github.com/opencontainers/image-spec/blob/main/layer.md>. Whoever made an image may
//! be hostile: nothing is followed, made or removed outside the folder.

mod root;
mod watch;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path};
use std::rc::Rc;

use deploykit_core::{Error, ErrorKind, Result};
use root::Root;
use tar::{Entry, EntryType};
use watch::Watch;

use crate::digest::Digest;
use crate::error::{error, on_path};
use crate::layout::Layout;

const UNPACK: &str = "unpack an image";
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;

/// How much an image may unpack to, all layers together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Bytes of the decompressed layers.
    pub bytes: u64,
    /// Files, folders and links.
    pub entries: u64,
}

impl Default for UnpackLimits {
    /// 16 GiB and a million entries.
    fn default() -> Self {
        Self { bytes: 16 << 30, entries: 1_000_000 }
    }
}

impl Layout {
    /// Unpacks one platform's image into a folder that is empty or not there yet: files with
    /// their modes and times, links, and owners where this process is root. Extended attributes
    /// are left out.
    ///
    /// It blocks. What had been unpacked before an error stays in the folder.
    ///
    /// # Errors
    /// `AlreadyExists` where the folder has something in it; `Corrupt` where a layer is not what
    /// its digests say; `Invalid`, naming the entry, for absolute paths, `..`, links that lead
    /// out, devices, pipes, names that are too long, entries that come twice in a layer, and more
    /// than the limits.
    pub fn unpack(&self, image: &Digest, target: &Path, limits: UnpackLimits) -> Result<()> {
        let manifest = self.manifest(image)?;
        let diff_ids = self.image(&manifest.config.digest)?.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let message = "the configuration names other layers than the manifest";
            return Err(error(ErrorKind::Corrupt, UNPACK, message).with("image", image));
        }
        let failed = on_path(UNPACK, target);
        fs::create_dir_all(target).map_err(&failed)?;
        if fs::read_dir(target).map_err(&failed)?.next().is_some() {
            let message = "the folder is not empty; name another one";
            return Err(
                error(ErrorKind::AlreadyExists, UNPACK, message).with("path", target.display())
            );
        }
        let mut unpacker = Unpacker {
            root: Root::open(target).map_err(&failed)?,
            left: limits.entries,
            modes: BTreeMap::new(),
            written: BTreeSet::new(),
        };
        let bytes = Rc::new(Cell::new(limits.bytes));
        for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
            let watch = Watch::new(self.layer(layer)?, bytes.clone());
            let found = unpacker.layer(watch).map_err(|e| e.with("layer", &layer.digest))?;
            if found != *diff_id {
                let message = "the layer's content is not what the image's configuration says";
                return Err(error(ErrorKind::Corrupt, UNPACK, message)
                    .with("layer", &layer.digest)
                    .with("wanted", diff_id)
                    .with("found", found));
            }
        }
        unpacker.root.set_folder_modes(unpacker.modes).map_err(failed)
    }
}

struct Unpacker {
    root: Root,
    /// How many entries may still come.
    left: u64,
    /// Folders' modes, set at the end: one may be read-only.
    modes: BTreeMap<String, u32>,
    /// What the current layer has made: its own whiteouts don't hide it.
    written: BTreeSet<String>,
}

impl Unpacker {
    /// Unpacks a layer, and says the digest of its content.
    fn layer(&mut self, watch: Watch<impl Read>) -> Result<Digest> {
        self.written.clear();
        let allowance = watch.allowance();
        let mut archive = tar::Archive::new(watch);
        let mut entries = archive.entries().map_err(refused)?;
        loop {
            // Between entries there is nothing to read but names and attributes.
            allowance.set(watch::BETWEEN_ENTRIES);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(refused)?;
            allowance.set(u64::MAX);
            if entry.header().entry_type() == EntryType::XGlobalHeader {
                continue;
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            self.entry(&mut entry).map_err(|e| e.with("entry", name.escape_debug()))?;
        }
        allowance.set(u64::MAX);
        archive.into_inner().finish().map_err(refused)
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        self.left = self.left.checked_sub(1).ok_or_else(|| bad("more entries than allowed"))?;
        let path = inner(&entry.path_bytes())?;
        let Some((folder, name)) = split(&path) else {
            // The root's own entry.
            return Ok(());
        };
        if name == OPAQUE {
            return self.root.clear(folder, &self.written).map_err(refused);
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT) {
            if matches!(hidden, "" | "." | "..") || hidden.starts_with(WHITEOUT) {
                return Err(bad("a whiteout that hides nothing"));
            }
            let hidden = join(folder, hidden);
            if self.written.contains(&hidden) {
                return Ok(());
            }
            return self.root.remove(&hidden).map_err(refused);
        }
        if !self.written.insert(path.clone()) {
            return Err(bad("it comes twice"));
        }
        let header = entry.header().clone();
        let mode = header.mode().map_err(refused)? & 0o7777;
        let owner = (number(header.uid())?, number(header.gid())?);
        match header.entry_type() {
            EntryType::Directory => {
                self.root.folder(&path, owner).map_err(refused)?;
                self.modes.insert(path, mode);
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous => {
                let time = header.mtime().map_err(refused)?;
                let attributes = attributes(entry).map_err(refused)?;
                self.root.file(&path, mode, owner, time, &attributes, entry).map_err(refused)
            }
            EntryType::Symlink => {
                let target = entry.link_name_bytes().unwrap_or_default().into_owned();
                self.root.symlink(&path, &target, owner).map_err(refused)
            }
            EntryType::Link => {
                let target = inner(&entry.link_name_bytes().unwrap_or_default())?;
                self.root.hard_link(&path, &target).map_err(refused)
            }
            _ => Err(bad("only files, folders and links are unpacked, no device or pipe")),
        }
    }
}

/// The extended attributes that the format `pax` says of an entry: those that users may set, and
/// what a program is allowed. One whose value has a line break is not read, and is left out.
fn attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for record in entry.pax_extensions()?.into_iter().flatten().flatten() {
        let name = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr."));
        if let Some(name) = name.filter(|n| n.starts_with("user.") || *n == "security.capability") {
            attributes.push((name.to_owned(), record.value_bytes().to_vec()));
        }
    }
    Ok(attributes)
}

/// A path within the image, its parts joined by single slashes.
fn inner(path: &[u8]) -> Result<String> {
    let text = std::str::from_utf8(path).map_err(|_| bad("the name is not UTF-8"))?;
    if text.len() > LONGEST_PATH {
        return Err(bad("the name is too long"));
    }
    let mut parts = Vec::new();
    for component in Path::new(text).components() {
        match component {
            Component::CurDir => {}
            Component::Normal(part) => {
                let part = part.to_str().unwrap_or_default();
                if part.len() > LONGEST_NAME {
                    return Err(bad("the name is too long"));
                }
                parts.push(part);
            }
            Component::RootDir | Component::Prefix(_) => return Err(bad("an absolute path")),
            Component::ParentDir => return Err(bad("`..` in a path")),
        }
    }
    Ok(parts.join("/"))
}

fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        Some(both) => Some(both),
        None if path.is_empty() => None,
        None => Some(("", path)),
    }
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

fn number(id: io::Result<u64>) -> Result<u32> {
    id.map_err(refused)?.try_into().map_err(|_| bad("an owner beyond 32 bits"))
}

fn bad(message: &str) -> Error {
    error(ErrorKind::Invalid, UNPACK, message)
}

/// What the archive, or the folder, made of an entry.
fn refused(cause: io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::FileTooLarge => bad("it unpacks to more than is allowed").because(cause),
        io::ErrorKind::InvalidInput => bad("it leads out of the image, or through a file"),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            error(ErrorKind::Unavailable, UNPACK, "the disk is full").because(cause)
        }
        io::ErrorKind::PermissionDenied => {
            error(ErrorKind::Unauthorized, UNPACK, "the folder's permissions don't allow it")
                .because(cause)
        }
        _ => error(ErrorKind::Corrupt, UNPACK, "the layer is damaged").because(cause),
    }
}
