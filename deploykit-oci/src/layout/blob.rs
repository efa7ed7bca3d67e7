//! Blobs in pieces.

use std::fs::File;
use std::io::{self, Read, Write};

use deploykit_core::{ErrorKind, Result};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::Layout;
use crate::digest::Digest;
use crate::error::{error, on_path};

/// A blob that is being written. Dropped before [`BlobWriter::finish`], it leaves nothing.
pub struct BlobWriter {
    layout: Layout,
    file: NamedTempFile,
    hasher: Sha256,
    size: u64,
}

impl BlobWriter {
    pub(super) fn new(layout: &Layout) -> Result<Self> {
        let work = layout.work();
        let file = NamedTempFile::new_in(&work).map_err(on_path("start a blob", &work))?;
        Ok(Self { layout: layout.clone(), file, hasher: Sha256::new(), size: 0 })
    }

    /// Puts the blob in its place, and says its digest and its size in bytes.
    ///
    /// # Errors
    /// Of the file system.
    pub fn finish(self) -> Result<(Digest, u64)> {
        let digest = Digest::finish(self.hasher.clone());
        let size = self.size;
        self.place(&digest)?;
        Ok((digest, size))
    }

    /// Puts the blob in its place where it is what `wanted` says.
    ///
    /// # Errors
    /// `Corrupt` where it is something else, which is not stored; of the file system.
    pub fn finish_as(self, wanted: &Digest) -> Result<()> {
        let found = Digest::finish(self.hasher.clone());
        if found != *wanted {
            let message = "what arrived is not what its digest says";
            return Err(error(ErrorKind::Corrupt, "store a blob", message)
                .with("wanted", wanted)
                .with("found", found));
        }
        self.place(wanted)
    }

    fn place(self, digest: &Digest) -> Result<()> {
        if !self.layout.has(digest, self.size) {
            let path = self.layout.blob_path(digest);
            let failed = on_path("store a blob", &path);
            // Read-only, since its name says what is in it.
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o444);
            self.file.as_file().set_permissions(mode).map_err(&failed)?;
            self.file.persist(&path).map_err(|e| failed(e.error))?;
        }
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A blob that is being read. Where the bytes are not what the digest says, the end of the file
/// is an error.
pub struct BlobReader {
    file: File,
    hasher: Sha256,
    digest: Digest,
}

impl BlobReader {
    pub(super) fn new(file: File, digest: Digest) -> Self {
        Self { file, hasher: Sha256::new(), digest }
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        if read == 0 && !buffer.is_empty() {
            let found = Digest::finish(self.hasher.clone());
            if found != self.digest {
                let what = format!("the content's digest is {found}, not {}", self.digest);
                return Err(io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
        Ok(read)
    }
}
