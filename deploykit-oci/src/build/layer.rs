//! One layer: entries to a tar archive, compressed, hashed on both sides in one pass.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use deploykit_core::{Error, ErrorKind, Result};
use flate2::write::GzEncoder;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::Layer;
use super::recipe::{Compression, Recipe};
use super::split::Part;
use super::tree::{Content, Entry, Stat};
use crate::digest::Digest;
use crate::error::{error, on, on_path};
use crate::layout::{BlobWriter, Layout, descriptor};
use crate::spec::media_type;

const WRITE: &str = "write a layer";
/// Compressors work in pieces of this many bytes.
const PIECE: usize = 256 << 10;

/// Writes a layer into the store.
pub(super) fn write(recipe: &Recipe, layout: &Layout, part: &Part<'_>) -> Result<Layer> {
    let failed = |cause| on(WRITE, "path", layout.path().display(), cause);
    let blob = layout.writer()?;
    let (media_type, diff_id, blob) = match recipe.compression {
        Compression::Zstd => {
            let encoder = Frames::new(blob, recipe.compression.level()).map_err(failed)?;
            let (diff_id, encoder) = write_tar(recipe, encoder, part)?;
            (media_type::LAYER_ZSTD, diff_id, encoder.finish().map_err(failed)?)
        }
        Compression::Gzip => {
            let level = flate2::Compression::new(recipe.compression.level().unsigned_abs());
            // The header that this writes names neither a file, a time nor a machine.
            let encoder = GzEncoder::new(blob, level);
            let (diff_id, encoder) = write_tar(recipe, encoder, part)?;
            (media_type::LAYER_GZIP, diff_id, encoder.finish().map_err(failed)?)
        }
    };
    let (digest, size) = BlobWriter::finish(blob)?;
    Ok(Layer { descriptor: descriptor(media_type, digest, size), diff_id, is_new: true })
}

fn write_tar<W: Write>(recipe: &Recipe, output: W, part: &Part<'_>) -> Result<(Digest, W)> {
    let hashed = Hashed { inner: output, hasher: Sha256::new() };
    let mut archive = tar::Builder::new(BufWriter::with_capacity(PIECE, hashed));
    for (path, entry) in part {
        append(&mut archive, path, entry, recipe.epoch)?;
    }
    let failed = |cause| on(WRITE, "part", "its end", cause);
    let hashed = archive.into_inner().map_err(failed)?.into_inner();
    let Hashed { inner, hasher } = hashed.map_err(|e| failed(e.into_error()))?;
    Ok((Digest::finish(hasher), inner))
}

fn append<W: Write>(
    archive: &mut tar::Builder<W>,
    path: &str,
    entry: &Entry,
    epoch: u64,
) -> Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(entry.owner.0.into());
    header.set_gid(entry.owner.1.into());
    header.set_mtime(epoch);
    header.set_size(entry.size());
    let failed = |cause| on(WRITE, "path", path, cause);
    match &entry.content {
        Content::Folder => {
            header.set_entry_type(EntryType::Directory);
            archive.append_data(&mut header, format!("{path}/"), io::empty()).map_err(failed)
        }
        Content::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            archive.append_link(&mut header, path, target).map_err(failed)
        }
        Content::HardLink(target) => {
            header.set_entry_type(EntryType::Link);
            archive.append_link(&mut header, path, target).map_err(failed)
        }
        Content::Bytes(bytes) => {
            archive.append_data(&mut header, path, bytes.as_slice()).map_err(failed)
        }
        Content::File { path: source, stat } => {
            let mut file = File::open(source).map_err(on_path(WRITE, source))?;
            // What is read is what was looked at, or it is refused: never half of each.
            check_unchanged(&file, source, stat)?;
            let records = attributes(&file).map_err(on_path(WRITE, source))?;
            if !records.is_empty() {
                append_records(archive, path, epoch, &records).map_err(failed)?;
            }
            let mut content = (&mut file).take(stat.size);
            archive.append_data(&mut header, path, &mut content).map_err(failed)?;
            if content.limit() > 0 {
                return Err(changed(source));
            }
            check_unchanged(&file, source, stat)
        }
    }
}

/// A file's extended attributes as records of the pax format: what a program is allowed beyond its
/// user, and what users keep. The rest belongs to this machine.
fn attributes(file: &File) -> io::Result<Vec<u8>> {
    let mut names = Vec::with_capacity(64 << 10);
    match rustix::fs::flistxattr(file, rustix::buffer::spare_capacity(&mut names)) {
        Ok(_) => {}
        Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
        Err(error) => return Err(error.into()),
    }
    let mut kept: Vec<&str> = names
        .split(|byte| *byte == 0)
        .filter_map(|name| std::str::from_utf8(name).ok())
        .filter(|name| *name == "security.capability" || name.starts_with("user."))
        .collect();
    kept.sort_unstable();
    let mut records = Vec::new();
    for name in kept {
        let mut value = Vec::with_capacity(64 << 10);
        rustix::fs::fgetxattr(file, name, rustix::buffer::spare_capacity(&mut value))?;
        let key = format!(" SCHILY.xattr.{name}=");
        // The length counts its own digits, and the newline.
        let rest = key.len() + value.len() + 1;
        let mut length = rest;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        records.extend_from_slice(length.to_string().as_bytes());
        records.extend_from_slice(key.as_bytes());
        records.extend_from_slice(&value);
        records.push(b'\n');
    }
    Ok(records)
}

/// Says more of the entry that follows.
fn append_records(
    archive: &mut tar::Builder<impl Write>,
    path: &str,
    epoch: u64,
    records: &[u8],
) -> io::Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(0o644);
    header.set_mtime(epoch);
    header.set_size(records.len() as u64);
    // Readers go by the kind of the entry; the name is for those that don't know it.
    let name = path.rsplit('/').next().unwrap_or(path);
    let short: String = name.chars().take(20).collect();
    archive.append_data(&mut header, format!("PaxHeaders/{short}"), records)
}

fn check_unchanged(file: &File, source: &Path, stat: &Stat) -> Result<()> {
    let now = file.metadata().map_err(on_path(WRITE, source))?;
    if Stat::from(&now) == *stat { Ok(()) } else { Err(changed(source)) }
}

fn changed(source: &Path) -> Error {
    let message = "the file changed while it was read; build again when it rests";
    error(ErrorKind::Conflict, WRITE, message).with("path", source.display())
}

/// Compresses with zstd, so many bytes at a time to a frame of their own; whoever decompresses reads
/// one frame after the other. A compressor that has its whole input before it takes a third less
/// time than one whose input goes round in a ring.
struct Frames<W> {
    inner: W,
    compressor: zstd::bulk::Compressor<'static>,
    piece: Vec<u8>,
    frame: Vec<u8>,
}

/// What a frame holds, in bytes before compression.
const FRAME: usize = 4 << 20;

impl<W: Write> Frames<W> {
    fn new(inner: W, level: i32) -> io::Result<Self> {
        Ok(Self {
            inner,
            compressor: zstd::bulk::Compressor::new(level)?,
            piece: Vec::with_capacity(FRAME),
            frame: Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME)),
        })
    }

    fn write_frame(&mut self) -> io::Result<()> {
        self.frame.clear();
        self.compressor.compress_to_buffer(&self.piece, &mut self.frame)?;
        self.piece.clear();
        self.inner.write_all(&self.frame)
    }

    fn finish(mut self) -> io::Result<W> {
        self.write_frame()?;
        Ok(self.inner)
    }
}

impl<W: Write> Write for Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() == FRAME {
            self.write_frame()?;
        }
        let taken = bytes.len().min(FRAME - self.piece.len());
        self.piece.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

struct Hashed<W> {
    inner: W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
