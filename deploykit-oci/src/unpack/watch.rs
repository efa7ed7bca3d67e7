//! What is read from a layer, hashed and counted.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// What headers with names and attributes may have, all those of one entry together.
pub(super) const BETWEEN_ENTRIES: u64 = 1 << 20;

/// A reader that stops where more comes than is allowed.
pub(super) struct Watch<R> {
    inner: R,
    hasher: Sha256,
    left: Rc<Cell<u64>>,
    allowance: Rc<Cell<u64>>,
}

impl<R: Read> Watch<R> {
    /// `left` is what all layers may have together.
    pub(super) fn new(inner: R, left: Rc<Cell<u64>>) -> Self {
        let allowance = Rc::new(Cell::new(u64::MAX));
        Self { inner, hasher: Sha256::new(), left, allowance }
    }

    /// What may be read from now on, to be set by whoever reads.
    pub(super) fn allowance(&self) -> Rc<Cell<u64>> {
        self.allowance.clone()
    }

    /// Reads what is left, and says the digest of all.
    pub(super) fn finish(mut self) -> io::Result<Digest> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(Digest::finish(self.hasher))
    }
}

impl<R: Read> Read for Watch<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        for allowed in [&self.left, &self.allowance] {
            let left = allowed.get().checked_sub(read as u64);
            let too_much = || io::Error::new(io::ErrorKind::FileTooLarge, "a limit is reached");
            allowed.set(left.ok_or_else(too_much)?);
        }
        Ok(read)
    }
}
