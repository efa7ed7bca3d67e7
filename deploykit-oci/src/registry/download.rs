//! Blobs on their way from a registry.

use std::io::Write;

use bytes::Bytes;
use deploykit_core::{Error, ErrorKind, Result};
use hyper::header::{CONTENT_RANGE, RANGE};
use hyper::{Method, StatusCode};
use tokio::sync::mpsc;

use super::RegistryClient;
use super::call::Call;
use super::failure::{Attempt, Budget, Failure};
use super::transfer::{Outcome, Transfer};
use super::transport::Answer;
use crate::digest::Digest;
use crate::error::{error, on_path};
use crate::layout::{LARGEST_DOCUMENT, Layout};
use crate::reference::Reference;
use crate::spec::Descriptor;

const DOWNLOAD: &str = "download a blob";
/// How many pieces wait to be written.
const WAITING: usize = 16;

impl RegistryClient {
    /// Reads a blob of at most 4 MiB: a configuration, a signature.
    ///
    /// # Errors
    /// As [`RegistryClient::pull`]; `Invalid` where it is larger.
    pub async fn blob(&self, repository: &Reference, blob: &Descriptor) -> Result<Vec<u8>> {
        if blob.size > LARGEST_DOCUMENT {
            let message = "a document of more than 4 MiB";
            return Err(error(ErrorKind::Invalid, DOWNLOAD, message).with("digest", &blob.digest));
        }
        let place = repository.at(blob.digest.clone());
        let mut sink = Sink::Memory(Vec::new());
        self.receive(&place, blob, &mut sink).await?;
        let Sink::Memory(bytes) = sink else { return Err(stopped()) };
        let found = Digest::of(&bytes);
        if found != blob.digest {
            let message = "what arrived is not what its digest says";
            return Err(error(ErrorKind::Corrupt, DOWNLOAD, message)
                .with("image", &place)
                .with("found", found));
        }
        Ok(bytes)
    }

    /// Downloads a blob into a store, unless it is there.
    pub(super) async fn download(
        &self,
        from: &Reference,
        blob: Descriptor,
        layout: &Layout,
    ) -> Result<()> {
        let place = from.at(blob.digest.clone());
        self.tell(Transfer::Started { digest: blob.digest.clone(), size: blob.size });
        let outcome = match layout.contains(&blob) {
            true => Outcome::Existing,
            false => {
                let stored = self.download_missing(&place, &blob, layout).await;
                stored.map_err(|e| match e.kind() {
                    ErrorKind::Corrupt => e.with("image", &place),
                    _ => e,
                })?;
                Outcome::Received
            }
        };
        self.tell(Transfer::Finished { digest: blob.digest, outcome });
        Ok(())
    }

    async fn download_missing(
        &self,
        place: &Reference,
        blob: &Descriptor,
        layout: &Layout,
    ) -> Result<()> {
        let (pieces, mut received) = mpsc::channel::<Bytes>(WAITING);
        let (store, wanted) = (layout.clone(), blob.digest.clone());
        // Where the sender is dropped early, what arrived has another digest and isn't stored.
        let writer = tokio::task::spawn_blocking(move || {
            let mut writer = store.writer()?;
            while let Some(piece) = received.blocking_recv() {
                writer.write_all(&piece).map_err(on_path(DOWNLOAD, store.path()))?;
            }
            writer.finish_as(&wanted)
        });
        let mut sink = Sink::Writer(pieces);
        let received = self.receive(place, blob, &mut sink).await;
        let is_stopped = matches!(&sink, Sink::Writer(pieces) if pieces.is_closed());
        drop(sink);
        let written = writer.await.map_err(|cause| stopped().because(cause))?;
        // A writer that receives no more says itself why.
        if is_stopped { written.and(received) } else { received.and(written) }
    }

    /// Receives a blob piece by piece; a connection that broke is taken up where it did.
    async fn receive(&self, place: &Reference, blob: &Descriptor, sink: &mut Sink) -> Result<()> {
        let mut budget = Budget::new(self.shared.config.retry_for);
        let mut done = 0;
        while done < blob.size {
            let before = done;
            let failure = match self.receive_rest(place, blob, &mut done, sink).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if done > before {
                budget.refill();
            }
            budget.pause(failure).await?;
        }
        Ok(())
    }

    async fn receive_rest(
        &self,
        place: &Reference,
        blob: &Descriptor,
        done: &mut u64,
        sink: &mut Sink,
    ) -> Attempt<()> {
        let mut call = Call::read(DOWNLOAD, Method::GET, place, format!("blobs/{}", blob.digest));
        if *done > 0 {
            call = call.header(RANGE, format!("bytes={done}-"));
        }
        let mut answer = self.call_ok(&call).await?;
        let mut skip = match answer.status() {
            StatusCode::PARTIAL_CONTENT if starts_at(&answer) == Some(*done) => 0,
            // The registry sends it from the start again.
            StatusCode::OK => *done,
            _ => {
                let message = "the registry sends another part of the blob than was asked for";
                return Err(error(ErrorKind::Corrupt, DOWNLOAD, message)
                    .with("image", place)
                    .into());
            }
        };
        let wrong = |what: String| -> Failure {
            error(ErrorKind::Corrupt, DOWNLOAD, what).with("image", place).into()
        };
        let wanted = blob.size - *done + skip;
        if let Some(length) = answer.length().filter(|length| *length != wanted) {
            return Err(wrong(format!(
                "the registry announces {length} bytes instead of {wanted}"
            )));
        }
        while let Some(mut piece) =
            answer.piece().await.map_err(|f| f.map(|e| cut(e, place, *done, blob.size)))?
        {
            let skipped = skip.min(piece.len() as u64);
            skip -= skipped;
            let _ = piece.split_to(usize::try_from(skipped).unwrap_or(piece.len()));
            if *done + piece.len() as u64 > blob.size {
                return Err(wrong(format!("more comes than the blob's {} bytes", blob.size)));
            }
            if !piece.is_empty() {
                *done += piece.len() as u64;
                sink.take(piece).await?;
                self.tell(Transfer::Moved { digest: blob.digest.clone(), done: *done });
            }
        }
        if *done < blob.size {
            let ended = error(ErrorKind::Unavailable, DOWNLOAD, "the answer ended");
            return Err(Failure::retryable(cut(ended, place, *done, blob.size)));
        }
        Ok(())
    }
}

/// Where a blob's pieces go.
enum Sink {
    Memory(Vec<u8>),
    Writer(mpsc::Sender<Bytes>),
}

impl Sink {
    async fn take(&mut self, piece: Bytes) -> Result<()> {
        match self {
            Self::Memory(bytes) => {
                bytes.extend_from_slice(&piece);
                Ok(())
            }
            Self::Writer(pieces) => pieces.send(piece).await.map_err(|_| stopped()),
        }
    }
}

fn cut(cause: Error, place: &Reference, done: u64, size: u64) -> Error {
    let message = format!("the blob broke off after {done} of {size} bytes");
    error(cause.kind(), DOWNLOAD, message).with("image", place).because(cause)
}

fn stopped() -> Error {
    error(ErrorKind::Failed, DOWNLOAD, "the store takes no more")
}

/// The first byte of `Content-Range: bytes 10-99/100`.
fn starts_at(answer: &Answer) -> Option<u64> {
    let range = answer.header(CONTENT_RANGE)?.strip_prefix("bytes ")?;
    range.split_once('-')?.0.trim().parse().ok()
}
