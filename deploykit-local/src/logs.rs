//! What instances write: an append-only file for standard output and one for standard error, so
//! that nothing depends on the supervisor being alive.
//!
//! An instance keeps its file open for as long as it runs, so the file can be neither renamed
//! nor emptied without losing lines. Rotation gives the blocks of the oldest lines back to the
//! file system instead (`FALLOC_FL_PUNCH_HOLE`,
//! [fallocate(2)](https://man7.org/linux/man-pages/man2/fallocate.2.html)): the file keeps its
//! apparent length, offsets stay true, and readers begin at the first block that is left. Where
//! the file system cannot do that, the file grows and a warning says so.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate};

/// What is kept of an instance's output at least, once it has written that much.
pub(crate) const KEEP: u64 = 8 << 20;
/// A longer line is handed out in pieces.
const LONGEST_LINE: usize = 256 << 10;
const BLOCK: usize = 64 << 10;

/// Opens a log for writing, readable by the owner alone.
pub(crate) fn open_for_append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Gives back the oldest blocks once more than twice `keep` bytes are held. Returns whether it did.
///
/// # Errors
/// [`io::ErrorKind::Unsupported`] where the file system cannot.
pub(crate) fn trim(path: &Path, keep: u64) -> io::Result<bool> {
    let file = OpenOptions::new().write(true).open(path)?;
    let meta = file.metadata()?;
    if meta.blocks() * 512 <= 2 * keep {
        return Ok(false);
    }
    let block = meta.blksize().max(4096);
    let end = meta.len().saturating_sub(keep) / block * block;
    if end == 0 {
        return Ok(false);
    }
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, end)?;
    Ok(true)
}

/// Reads a log line by line, from a chosen place on, and goes on where it stopped.
#[derive(Debug)]
pub(crate) struct Reader {
    file: File,
    offset: u64,
    partial: Vec<u8>,
}

impl Reader {
    /// From the first line that is still there.
    pub(crate) fn from_start(log: &Path) -> io::Result<Self> {
        let file = File::open(log)?;
        let offset = first_line(&file)?;
        Ok(Self { file, offset, partial: Vec::new() })
    }

    /// From the last `lines` lines on.
    pub(crate) fn from_tail(log: &Path, lines: usize) -> io::Result<Self> {
        let mut reader = Self::from_start(log)?;
        reader.offset = tail_offset(&reader.file, reader.offset, lines)?;
        Ok(reader)
    }

    /// The lines that have been completed since the last call, at most about 64 KiB of them;
    /// empty where there is none. With `all`, an unfinished last line counts as one.
    pub(crate) fn lines(&mut self, all: bool) -> io::Result<Vec<String>> {
        let mut buffer = vec![0; BLOCK];
        let read = self.file.read_at(&mut buffer, self.offset)?;
        self.offset += read as u64;
        let mut lines = Vec::new();
        for piece in buffer[..read].split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial.len() >= LONGEST_LINE {
                lines.push(self.take());
            }
        }
        if all && read < BLOCK && !self.partial.is_empty() {
            lines.push(self.take());
        }
        Ok(lines)
    }

    /// Whether everything that the file holds now has been read.
    pub(crate) fn at_end(&self) -> io::Result<bool> {
        Ok(self.offset >= self.file.metadata()?.len())
    }

    fn take(&mut self) -> String {
        let mut line = std::mem::take(&mut self.partial);
        if line.last() == Some(&b'\n') {
            line.pop();
            if line.last() == Some(&b'\r') {
                line.pop();
            }
        }
        String::from_utf8_lossy(&line).into_owned()
    }
}

/// The last lines of a log; empty where there is none.
pub(crate) fn tail(log: &Path, lines: usize) -> io::Result<Vec<String>> {
    let mut reader = match Reader::from_tail(log, lines) {
        Ok(reader) => reader,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut tail = Vec::new();
    while !reader.at_end()? {
        tail.extend(reader.lines(false)?);
    }
    tail.extend(reader.lines(true)?);
    Ok(tail)
}

/// Where the first whole line begins behind what was given back.
fn first_line(file: &File) -> io::Result<u64> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)) {
        Ok(0) | Err(rustix::io::Errno::NXIO) => Ok(0),
        Ok(data) => line_from(file, data),
        Err(e) => Err(e.into()),
    }
}

/// The first beginning of a line at or after `offset`.
fn line_from(file: &File, offset: u64) -> io::Result<u64> {
    let mut at = offset.saturating_sub(1);
    let mut handle = file;
    handle.seek(SeekFrom::Start(at))?;
    let mut buffer = [0; 4096];
    loop {
        let read = handle.read(&mut buffer)?;
        if read == 0 {
            return Ok(at);
        }
        if let Some(newline) = buffer[..read].iter().position(|byte| *byte == b'\n') {
            return Ok(at + newline as u64 + 1);
        }
        at += read as u64;
    }
}

fn tail_offset(file: &File, first: u64, lines: usize) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let mut end = length;
    let mut newlines = 0;
    let mut buffer = vec![0; BLOCK];
    while end > first {
        let start = end.saturating_sub(BLOCK as u64).max(first);
        let block = &mut buffer[..usize::try_from(end - start).unwrap_or(BLOCK)];
        file.read_exact_at(block, start)?;
        for (index, _) in block.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let after = start + index as u64 + 1;
            // The newline that ends the last line separates nothing.
            if after != length {
                newlines += 1;
            }
            if newlines == lines && after != length {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(if lines == 0 { length } else { first })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::io::Write as _;
    use std::path::PathBuf;

    fn log(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.log");
        open_for_append(&path).unwrap().write_all(content.as_bytes()).unwrap();
        (folder, path)
    }

    #[test]
    fn the_tail_counts_lines_whole_and_unfinished() {
        let (_folder, path) = log("one\r\ntwo\nthree");
        assert_eq!(tail(&path, 2).unwrap(), ["two", "three"]);
        assert_eq!(tail(&path, 9).unwrap(), ["one", "two", "three"]);
        assert_eq!(tail(&path, 0).unwrap(), [""; 0]);
        assert_eq!(tail(&path.with_extension("none"), 3).unwrap(), [""; 0]);
        let (_folder, path) = log("one\ntwo\n");
        assert_eq!(tail(&path, 1).unwrap(), ["two"]);
        let long: String = (0..40_000).map(|n| format!("line {n}\n")).collect();
        let (_folder, path) = log(&long);
        let last = tail(&path, 20_000).unwrap();
        assert_eq!((last.len(), last[0].as_str()), (20_000, "line 20000"));
    }

    #[test]
    fn following_hands_out_a_line_once_it_is_whole() {
        let (_folder, path) = log("one\ntw");
        let mut reader = Reader::from_start(&path).unwrap();
        assert_eq!(reader.lines(false).unwrap(), ["one"]);
        assert_eq!(reader.lines(false).unwrap(), [""; 0]);
        open_for_append(&path).unwrap().write_all(b"o\nthree").unwrap();
        assert_eq!(reader.lines(false).unwrap(), ["two"]);
        assert_eq!(reader.lines(true).unwrap(), ["three"]);
        assert!(reader.at_end().unwrap());
    }

    #[test]
    fn trimming_loses_no_new_line_while_the_writer_goes_on() {
        let (_folder, path) = log("");
        let mut writer = open_for_append(&path).unwrap();
        let mut trimmed = 0;
        for n in 0..60_000 {
            writeln!(writer, "line {n:08}").unwrap();
            if n % 1000 == 0 && trim(&path, 64 << 10).unwrap() {
                trimmed += 1;
            }
        }
        assert!(trimmed > 1, "it was trimmed {trimmed} times");
        let kept = tail(&path, usize::MAX).unwrap();
        assert!(kept.len() < 20_000, "{} lines kept", kept.len());
        let first = 60_000 - kept.len();
        for (line, n) in kept.iter().zip(first..) {
            assert_eq!(line, &format!("line {n:08}"));
        }
        assert!(std::fs::metadata(&path).unwrap().blocks() * 512 < 300 << 10);
    }
}
