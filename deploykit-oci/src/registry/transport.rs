//! One HTTP request and its answer, with a deadline on every wait.

use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use deploykit_core::{ErrorKind, Result};
use futures_util::TryStreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName};
use hyper::http::request::Builder;
use hyper::{Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

use super::config::RegistryConfig;
use super::failure::{Attempt, Failure, unreachable};
use super::trust;
use crate::error::{error, on_path};

type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What a file is read in, in bytes.
const PIECE: usize = 256 << 10;

/// What a request carries; it can be sent again.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Empty,
    Bytes(Bytes),
    /// A part of a file.
    File {
        path: PathBuf,
        offset: u64,
        length: u64,
    },
}

/// Told how many bytes of a payload have been sent.
pub(super) type Meter = Arc<dyn Fn(u64) + Send + Sync>;

/// Makes connections, and keeps them for the next request.
pub(super) struct Transport {
    plain: Client<HttpConnector, Body>,
    encrypted: OnceLock<Client<HttpsConnector<HttpConnector>, Body>>,
    ca_files: Vec<PathBuf>,
    connect_timeout: Duration,
    idle_timeout: Duration,
}

/// An answer whose body has not been read.
pub(super) struct Answer {
    response: Response<Incoming>,
    idle_timeout: Duration,
}

impl Transport {
    pub(super) fn new(config: &RegistryConfig) -> Self {
        Self {
            plain: client().build(connector(config.connect_timeout)),
            encrypted: OnceLock::new(),
            ca_files: config.ca_files.clone(),
            connect_timeout: config.connect_timeout,
            idle_timeout: config.idle_timeout,
        }
    }

    /// The client for `https`, made when it is first wanted: reading this machine's certificates
    /// takes a while.
    fn encrypted(&self) -> Result<&Client<HttpsConnector<HttpConnector>, Body>> {
        if let Some(client) = self.encrypted.get() {
            return Ok(client);
        }
        let mut http = connector(self.connect_timeout);
        http.enforce_http(false);
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(trust::config(&self.ca_files)?)
            .https_only()
            .enable_all_versions()
            .wrap_connector(http);
        Ok(self.encrypted.get_or_init(|| client().build(https)))
    }

    /// Sends a request once. Dropped, it may or may not have arrived.
    pub(super) async fn send(
        &self,
        request: Builder,
        payload: &Payload,
        meter: Option<Meter>,
    ) -> Attempt<Answer> {
        let sent = Arc::new(AtomicU64::new(0));
        let (request, body) = open(request, payload, Arc::clone(&sent), meter).await?;
        let request = request.body(body).map_err(|cause| {
            let message = "the address cannot be written as a request";
            error(ErrorKind::Invalid, "speak to a registry", message).because(cause)
        })?;
        let host = request.uri().authority().map(ToString::to_string).unwrap_or_default();
        let answer = match request.uri().scheme_str() {
            Some("https") => self.encrypted()?.request(request),
            _ => self.plain.request(request),
        };
        let mut answer = std::pin::pin!(answer);
        let mut seen = 0;
        let response = loop {
            match tokio::time::timeout(self.idle_timeout, &mut answer).await {
                Ok(answered) => break answered.map_err(|cause| unreachable(&host, cause))?,
                // Something was sent meanwhile, so it is not idle.
                Err(_) if sent.load(Ordering::Relaxed) > seen => {
                    seen = sent.load(Ordering::Relaxed);
                }
                Err(_) => return Err(idle(self.idle_timeout).map(|e| e.with("registry", &host))),
            }
        };
        Ok(Answer { response, idle_timeout: self.idle_timeout })
    }
}

fn connector(timeout: Duration) -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(timeout));
    connector.set_nodelay(true);
    connector
}

fn client() -> hyper_util::client::legacy::Builder {
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_timer(TokioTimer::new()).timer(TokioTimer::new());
    builder
}

fn idle(timeout: Duration) -> Failure {
    let message = format!("nothing came for {} s", timeout.as_secs_f32());
    Failure::retryable(error(ErrorKind::Timeout, "speak to a registry", message))
}

/// The body of a request, whose length is known before it is sent. What is sent of a file is
/// counted.
async fn open(
    request: Builder,
    payload: &Payload,
    sent: Arc<AtomicU64>,
    meter: Option<Meter>,
) -> Result<(Builder, Body)> {
    let nothing = |never: std::convert::Infallible| match never {};
    Ok(match payload {
        Payload::Empty => (request, UnsyncBoxBody::new(Empty::new().map_err(nothing))),
        Payload::Bytes(bytes) => {
            (request, UnsyncBoxBody::new(Full::new(bytes.clone()).map_err(nothing)))
        }
        Payload::File { path, offset, length } => {
            let failed = on_path("read a blob", path);
            let mut file = tokio::fs::File::open(path).await.map_err(&failed)?;
            file.seek(io::SeekFrom::Start(*offset)).await.map_err(&failed)?;
            let pieces = ReaderStream::with_capacity(file.take(*length), PIECE);
            let body = StreamBody::new(pieces.map_ok(move |piece| {
                let length = piece.len() as u64;
                let total = sent.fetch_add(length, Ordering::Relaxed) + length;
                if let Some(meter) = &meter {
                    meter(total);
                }
                Frame::data(piece)
            }));
            let request = request.header(hyper::header::CONTENT_LENGTH, *length);
            (request, UnsyncBoxBody::new(body))
        }
    })
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(super) fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers().get(name)?.to_str().ok()
    }

    /// The length that the answer claims to have.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(hyper::header::CONTENT_LENGTH)?.parse().ok()
    }

    /// The next piece of the body; none at its end.
    pub(super) async fn piece(&mut self) -> Attempt<Option<Bytes>> {
        loop {
            let next = tokio::time::timeout(self.idle_timeout, self.response.body_mut().frame());
            match next.await.map_err(|_| idle(self.idle_timeout))? {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
                Some(Err(cause)) => {
                    let message = "the answer broke off before its end";
                    let cut = error(ErrorKind::Unavailable, "speak to a registry", message);
                    return Err(Failure::retryable(cut.because(cause)));
                }
            }
        }
    }

    /// The whole body; none where it has more than `limit` bytes.
    pub(super) async fn whole(&mut self, limit: u64) -> Attempt<Option<Vec<u8>>> {
        if self.length().is_some_and(|length| length > limit) {
            return Ok(None);
        }
        let mut whole = Vec::new();
        while let Some(piece) = self.piece().await? {
            if (whole.len() + piece.len()) as u64 > limit {
                return Ok(None);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(Some(whole))
    }

    /// Reads what is left of a small body, so that the connection can be used again.
    pub(super) async fn drain(mut self) {
        let _ = self.whole(64 << 10).await;
    }
}
