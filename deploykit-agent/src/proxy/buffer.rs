//! A growable byte queue that is read into without being zeroed first.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncRead;
use tokio_util::io::poll_read_buf;

/// What one read of a head, or of a small body, asks for.
pub(crate) const SMALL: usize = 16 * 1024;
/// What one read of a long body asks for: large enough that system calls stop dominating.
pub(crate) const LARGE: usize = 128 * 1024;

#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    start: usize,
}

impl Buffer {
    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..]
    }

    pub(crate) fn len(&self) -> usize {
        self.data.len() - self.start
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn consume(&mut self, n: usize) {
        self.start += n;
        if self.start >= self.data.len() {
            self.clear();
        }
    }

    pub(crate) fn clear(&mut self) {
        self.data.clear();
        self.start = 0;
    }

    /// Gives back memory that only a long body needed.
    pub(crate) fn shrink(&mut self) {
        if self.data.capacity() > SMALL && self.is_empty() {
            *self = Self::default();
        }
    }

    /// Reads once, up to `limit` bytes held in all. 0 means the end of the stream.
    pub(crate) fn poll_fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        limit: usize,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        if self.start > 0 && self.data.len() == self.data.capacity() {
            self.data.drain(..self.start);
            self.start = 0;
        }
        let held = self.data.len();
        if self.data.capacity() < limit {
            self.data.reserve_exact(limit - held);
        } else if held == self.data.capacity() {
            self.data.reserve(SMALL);
        }
        Poll::Ready(ready!(poll_read_buf(Pin::new(reader), cx, &mut self.data)))
    }

    /// Reads once, up to `limit` bytes held in all. 0 means the end of the stream.
    pub(crate) async fn fill<R: AsyncRead + Unpin>(
        &mut self,
        reader: &mut R,
        limit: usize,
    ) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_fill(reader, limit, cx)).await
    }
}
