//! Blobs on their way to a registry.

use std::path::PathBuf;

use bytes::Bytes;
use deploykit_core::{ErrorKind, Result};
use hyper::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, RANGE};
use hyper::{Method, StatusCode, Uri};

use super::RegistryClient;
use super::auth::escape;
use super::call::{Address, Call, access};
use super::failure::{Attempt, Budget, Failure};
use super::transfer::{Outcome, Transfer};
use super::transport::{Answer, Payload};
use crate::digest::Digest;
use crate::error::error;
use crate::reference::Reference;
use crate::spec::Descriptor;

const UPLOAD: &str = "upload a blob";
const SMALLEST_CHUNK: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// What is uploaded.
pub(super) struct Blob {
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) content: Content,
}

pub(super) enum Content {
    Bytes(Bytes),
    File(PathBuf),
}

/// An upload that the registry has begun.
#[derive(Clone)]
struct Session {
    location: Uri,
    offset: u64,
    smallest_chunk: u64,
    /// How far it got is not known.
    is_cut: bool,
}

impl RegistryClient {
    /// Stores some bytes as a blob of a repository, unless they are there.
    ///
    /// # Errors
    /// As [`RegistryClient::push`].
    pub async fn push_blob(
        &self,
        repository: &Reference,
        bytes: impl Into<Bytes>,
    ) -> Result<Digest> {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        let size = bytes.len() as u64;
        let blob = Blob { digest: digest.clone(), size, content: Content::Bytes(bytes) };
        self.upload(repository, &blob, &[]).await?;
        Ok(digest)
    }

    /// Sees to it that a repository has a blob: where it is there, or in one of the repositories
    /// that it may be mounted from, nothing is sent.
    pub(super) async fn upload(
        &self,
        to: &Reference,
        blob: &Blob,
        mount_from: &[&Reference],
    ) -> Result<Outcome> {
        let place = to.at(blob.digest.clone());
        self.tell(Transfer::Started { digest: blob.digest.clone(), size: blob.size });
        let mut budget = Budget::new(self.shared.config.retry_for);
        let mut session = None;
        let mut farthest = 0;
        let outcome = loop {
            let failure = match self.try_upload(&place, blob, mount_from, &mut session).await {
                Ok(outcome) => break outcome,
                Err(failure) => failure,
            };
            let offset = session.as_ref().map_or(0, |session: &Session| session.offset);
            if offset > farthest {
                farthest = offset;
                budget.refill();
            }
            budget.pause(failure).await?;
        };
        self.tell(Transfer::Finished { digest: blob.digest.clone(), outcome });
        Ok(outcome)
    }

    async fn try_upload(
        &self,
        place: &Reference,
        blob: &Blob,
        mount_from: &[&Reference],
        session: &mut Option<Session>,
    ) -> Attempt<Outcome> {
        // After an upload was cut it may be there all the same.
        if self.has_blob(place).await? {
            return Ok(Outcome::Existing);
        }
        if let Some(cut) = session.as_ref().filter(|session| session.is_cut) {
            *session = self.find_offset(place, cut.clone()).await?;
        }
        if session.is_none() {
            match self.begin(place, mount_from).await? {
                Some(begun) => *session = Some(begun),
                None => return Ok(Outcome::Mounted),
            }
        }
        let Some(open) = session else { return Ok(Outcome::Mounted) };
        // Until the registry says otherwise.
        open.is_cut = true;
        while open.offset < blob.size {
            self.send_chunk(place, blob, open).await?;
        }
        let separator = if open.location.query().is_some() { '&' } else { '?' };
        let digest = escape(blob.digest.as_str());
        let whole = format!("{}{separator}digest={digest}", open.location);
        let mut call = write(Method::PUT, place, whole.parse().map_err(|_| bad_location(place))?);
        call.headers.push((CONTENT_TYPE, "application/octet-stream".to_owned()));
        let answer = self.call(&call).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            *session = None;
        }
        self.expect(&call, answer).await.map_err(|f| lost(session.is_none(), f))?.drain().await;
        Ok(Outcome::Sent)
    }

    /// Whether a repository has a blob.
    pub(super) async fn has_blob(&self, place: &Reference) -> Attempt<bool> {
        let digest = place.digest().map(Digest::as_str).unwrap_or_default();
        let call = Call::write(UPLOAD, Method::HEAD, place, format!("blobs/{digest}"));
        let answer = self.call(&call).await?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            _ => self.expect(&call, answer).await.map(|_| true),
        }
    }

    /// Lets a repository take a blob from another one of its registry, unless it has it: whether
    /// it has it now.
    pub(super) async fn mount(
        &self,
        to: &Reference,
        blob: &Descriptor,
        from: &Reference,
    ) -> Result<bool> {
        let place = to.at(blob.digest.clone());
        self.tell(Transfer::Started { digest: blob.digest.clone(), size: blob.size });
        let attempt = || async {
            if self.has_blob(&place).await? {
                return Ok(Some(Outcome::Existing));
            }
            if from.domain() != to.domain() {
                return Ok(None);
            }
            let Some(refused) = self.begin(&place, &[from]).await? else {
                return Ok(Some(Outcome::Mounted));
            };
            // The registry has begun an upload instead, which nobody wants.
            let call = write(Method::DELETE, &place, refused.location);
            if let Ok(answer) = self.call(&call).await {
                answer.drain().await;
            }
            Ok(None)
        };
        let outcome = self.retrying(attempt).await?;
        if let Some(outcome) = outcome {
            self.tell(Transfer::Finished { digest: blob.digest.clone(), outcome });
        }
        Ok(outcome.is_some())
    }

    /// Begins an upload; none where the blob was mounted instead.
    async fn begin(&self, place: &Reference, from: &[&Reference]) -> Attempt<Option<Session>> {
        // A source is another repository of the same registry; the first one that has it is taken.
        let sources =
            from.iter().filter(|f| f.domain() == place.domain() && f.path() != place.path());
        for source in sources {
            let digest = place.digest().map(Digest::as_str).unwrap_or_default();
            let query = format!("mount={}&from={}", escape(digest), escape(source.path()));
            let mut call = start(place, format!("blobs/uploads/?{query}"));
            call.access = format!("{} {}", call.access, access(source, "pull"));
            let answer = self.call(&call).await?;
            if answer.status() == StatusCode::CREATED {
                answer.drain().await;
                return Ok(None);
            }
            if answer.status() == StatusCode::ACCEPTED {
                return self.opened(&call, answer).await.map(Some);
            }
            // Who may not read the source may upload all the same.
            answer.drain().await;
        }
        let call = start(place, "blobs/uploads/".to_owned());
        let answer = self.call_ok(&call).await?;
        self.opened(&call, answer).await.map(Some)
    }

    async fn opened(&self, call: &Call<'_>, answer: Answer) -> Attempt<Session> {
        let location = self.location(call, &self.uri(call)?, &answer)?;
        let smallest = answer.header(SMALLEST_CHUNK).and_then(|text| text.parse().ok());
        answer.drain().await;
        Ok(Session { location, offset: 0, smallest_chunk: smallest.unwrap_or(0), is_cut: false })
    }

    /// How far an upload got; none where the registry has forgotten it.
    async fn find_offset(&self, place: &Reference, cut: Session) -> Attempt<Option<Session>> {
        let call = write(Method::GET, place, cut.location.clone());
        let answer = self.call(&call).await?;
        if answer.status().is_client_error() && answer.status() != StatusCode::TOO_MANY_REQUESTS {
            answer.drain().await;
            return Ok(None);
        }
        let answer = self.expect(&call, answer).await?;
        let offset = range_end(&answer);
        let location = match answer.header(hyper::header::LOCATION) {
            Some(_) => self.location(&call, &cut.location, &answer)?,
            None => cut.location,
        };
        answer.drain().await;
        Ok(offset.map(|offset| Session { location, offset, ..cut }))
    }

    async fn send_chunk(
        &self,
        place: &Reference,
        blob: &Blob,
        session: &mut Session,
    ) -> Attempt<()> {
        let chunk = self.shared.config.chunk.max(session.smallest_chunk).max(1);
        let offset = session.offset;
        let length = chunk.min(blob.size - offset);
        let mut call = write(Method::PATCH, place, session.location.clone());
        call.headers.push((CONTENT_TYPE, "application/octet-stream".to_owned()));
        if length < blob.size {
            let last = offset + length - 1;
            call.headers.push((CONTENT_RANGE, format!("{offset}-{last}")));
        }
        call.payload = match &blob.content {
            Content::Bytes(bytes) => {
                let at = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                Payload::Bytes(bytes.slice(at(offset)..at(offset + length)))
            }
            Content::File(path) => Payload::File { path: path.clone(), offset, length },
        };
        if let Some(watcher) = self.watcher.clone() {
            let digest = blob.digest.clone();
            call.meter = Some(std::sync::Arc::new(move |sent| {
                watcher(Transfer::Moved { digest: digest.clone(), done: offset + sent });
            }));
        }
        let answer = self.call(&call).await?;
        // What the registry has may differ from what was sent: it is asked.
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            answer.drain().await;
            let message = "the registry has another part of it than was sent";
            let again = error(ErrorKind::Unavailable, UPLOAD, message).with("image", place);
            return Err(Failure::retryable(again));
        }
        let is_forgotten = answer.status() == StatusCode::NOT_FOUND;
        let answer = self.expect(&call, answer).await.map_err(|f| lost(is_forgotten, f))?;
        let taken = range_end(&answer).filter(|end| (1..=offset + length).contains(end));
        session.location = self.location(&call, &session.location, &answer)?;
        session.offset = taken.unwrap_or(offset + length);
        answer.drain().await;
        if session.offset <= offset {
            let message = "the registry has taken nothing of what was sent";
            let again = error(ErrorKind::Unavailable, UPLOAD, message).with("image", place);
            return Err(Failure::retryable(again));
        }
        Ok(())
    }
}

fn start(place: &Reference, within: String) -> Call<'_> {
    Call::write(UPLOAD, Method::POST, place, within)
}

fn write(method: Method, place: &Reference, location: Uri) -> Call<'_> {
    let mut call = Call::write(UPLOAD, method, place, "");
    call.address = Address::Whole(location);
    call
}

/// An upload that the registry has forgotten begins anew.
fn lost(is_forgotten: bool, failure: Failure) -> Failure {
    if is_forgotten { Failure::retryable(failure.error) } else { failure }
}

/// The end of what the registry has, from `Range: 0-999`. Without anything it says `0-0`, which a
/// single byte does too: that one is sent again.
fn range_end(answer: &Answer) -> Option<u64> {
    let range = answer.header(RANGE)?;
    let last: u64 = range.trim_start_matches("bytes=").split_once('-')?.1.parse().ok()?;
    Some(if last == 0 { 0 } else { last + 1 })
}

fn bad_location(place: &Reference) -> Failure {
    let message = "the registry sends the upload to no address";
    error(ErrorKind::Failed, UPLOAD, message).with("image", place).into()
}
