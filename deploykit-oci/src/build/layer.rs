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
            let encoder = zstd::Encoder::new(blob, ZSTD_LEVEL).map_err(failed)?;
            let (diff_id, encoder) = write_tar(recipe, encoder, part)?;
            (media_type::LAYER_ZSTD, diff_id, encoder.finish().map_err(failed)?)
        }
        Compression::Gzip => {
            // The header that this writes names neither a file, a time nor a machine.
            let encoder = GzEncoder::new(blob, flate2::Compression::new(GZIP_LEVEL));
            let (diff_id, encoder) = write_tar(recipe, encoder, part)?;
            (media_type::LAYER_GZIP, diff_id, encoder.finish().map_err(failed)?)
        }
    };
    let (digest, size) = BlobWriter::finish(blob)?;
    Ok(Layer { descriptor: descriptor(media_type, digest, size), diff_id, is_new: true })
}

const ZSTD_LEVEL: i32 = 3;
const GZIP_LEVEL: u32 = 6;

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
        Content::Bytes(bytes) => {
            archive.append_data(&mut header, path, bytes.as_slice()).map_err(failed)
        }
        Content::File { path: source, stat } => {
            let mut file = File::open(source).map_err(on_path(WRITE, source))?;
            // What is read is what was looked at, or it is refused: never half of each.
            check_unchanged(&file, source, stat)?;
            let mut content = (&mut file).take(stat.size);
            archive.append_data(&mut header, path, &mut content).map_err(failed)?;
            if content.limit() > 0 {
                return Err(changed(source));
            }
            check_unchanged(&file, source, stat)
        }
    }
}

fn check_unchanged(file: &File, source: &Path, stat: &Stat) -> Result<()> {
    let now = file.metadata().map_err(on_path(WRITE, source))?;
    if Stat::from(&now) == *stat { Ok(()) } else { Err(changed(source)) }
}

fn changed(source: &Path) -> Error {
    let message = "the file changed while it was read; build again when it rests";
    error(ErrorKind::Conflict, WRITE, message).with("path", source.display())
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
