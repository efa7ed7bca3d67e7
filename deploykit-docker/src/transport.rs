//! One connection pool to an engine, with one API version in every request.
//!
//! The client library leaves the version out of its URLs, and an engine then answers as its newest
//! version does; and it starts as many calls at once as it is asked to, while engines serve about
//! eight at once fastest.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bollard::BollardRequest;
use bollard::errors::Error;
use bytes::Bytes;
use futures_util::Stream;
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::http::request::Parts;
use hyper::upgrade::Upgraded;
use hyper::{Method, Response, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, oneshot};

use crate::config::Host;
use crate::connect::connect;

/// The API version that is spoken: the oldest that is supported, and what newer engines still
/// answer.
pub(crate) const VERSION: (usize, usize) = (1, 41);

/// How many calls are made at once.
const CALLS: usize = 8;

/// How long a stop counts as one of them: most programs have ended by then, and who has not keeps
/// no other one from being told to.
const STOP: Duration = Duration::from_millis(250);

/// How long an engine that has been reached before may be away (while it is restarted) before a
/// call fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// The pause between two attempts to reach an engine that is away.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a call that changes nothing is made again when its connection breaks.
const RETRIES: u32 = 3;

type Chunks = Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, io::Error>> + Send>>;
type Body = Either<Full<Bytes>, StreamBody<Chunks>>;

type Ended = oneshot::Receiver<hyper::Error>;

/// What all calls to one engine share.
pub(crate) struct Transport {
    host: Host,
    idle: Mutex<Vec<SendRequest<Body>>>,
    calls: Semaphore,
    /// Looks do not wait for what takes long.
    looks: Semaphore,
    /// Those that end something.
    stops: Semaphore,
    /// Whether the engine has ever answered.
    reached: std::sync::atomic::AtomicBool,
}

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Transport {
    pub(crate) fn new(host: Host) -> Arc<Self> {
        Arc::new(Self {
            host,
            idle: Mutex::default(),
            calls: Semaphore::new(CALLS),
            looks: Semaphore::new(CALLS),
            stops: Semaphore::new(CALLS),
            reached: false.into(),
        })
    }

    /// Where the engine is.
    pub(crate) fn host(&self) -> &Host {
        &self.host
    }

    /// Makes one call.
    pub(crate) async fn call(
        self: Arc<Self>,
        request: BollardRequest,
    ) -> Result<Response<Incoming>, Error> {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        // Calls that wait for something to happen would keep others from being made.
        let waits =
            ["/wait", "/events", "/logs", "/build", "/session", "/grpc", "/load", "/images/create"];
        let waits = waits.iter().any(|word| path.contains(word));
        let stops = path.contains("/stop");
        let (major, minor) = VERSION;
        parts.uri = format!("/v{major}.{minor}{path}").parse::<Uri>().map_err(io::Error::other)?;
        parts.headers.insert(header::HOST, header::HeaderValue::from_static("docker"));
        let repeatable = parts.method == Method::GET;
        let lane = match repeatable {
            true => &self.looks,
            false if stops => &self.stops,
            false => &self.calls,
        };
        let permit = match waits {
            true => None,
            false => Some(lane.acquire().await.map_err(io::Error::other)?),
        };
        let mut answer = std::pin::pin!(self.send(&parts, body, repeatable));
        if stops {
            match tokio::time::timeout(STOP, &mut answer).await {
                Ok(answer) => return answer,
                // The engine has nothing to do with it until the program has ended.
                Err(_) => drop(permit),
            }
        }
        answer.await
    }

    /// Sends one call, on another connection where one breaks.
    async fn send(
        self: &Arc<Self>,
        parts: &Parts,
        mut body: Body,
        repeatable: bool,
    ) -> Result<Response<Incoming>, Error> {
        let mut tries = 0;
        loop {
            let (mut sender, ended) = self.sender().await?;
            let pooled = ended.is_none();
            let again = match &body {
                Either::Left(bytes) => Some(Either::Left(bytes.clone())),
                Either::Right(_) => None,
            };
            let mut attempt = hyper::Request::new(body);
            *attempt.method_mut() = parts.method.clone();
            *attempt.uri_mut() = parts.uri.clone();
            *attempt.headers_mut() = parts.headers.clone();
            match sender.try_send_request(attempt).await {
                Ok(response) => {
                    self.keep(sender);
                    return Ok(response);
                }
                Err(mut failed) => {
                    // What was never sent can be sent again, whatever it is: an engine closes
                    // connections that have been idle.
                    let unsent = failed.take_message().map(hyper::Request::into_body);
                    tries += 1;
                    body = match (unsent, again) {
                        (Some(unsent), _) if pooled || tries <= RETRIES => unsent,
                        (None, Some(again)) if repeatable && tries <= RETRIES => again,
                        _ => return Err(why(failed.into_error(), ended).await),
                    };
                }
            }
        }
    }

    /// Makes a call of the client library's own kind that turns its connection into one of bytes.
    pub(crate) async fn upgrade(
        self: Arc<Self>,
        path: &str,
        json: String,
    ) -> Result<Upgraded, Error> {
        let request = hyper::Request::post(path)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "tcp")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Either::Left(Full::from(json)))
            .map_err(io::Error::other)?;
        let answer = self.call(request).await?;
        let status_code = answer.status().as_u16();
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(hyper::upgrade::on(answer).await?);
        }
        let said = answer.into_body().collect().await?.to_bytes();
        let message = serde_json::from_slice::<serde_json::Value>(&said)
            .ok()
            .and_then(|said| Some(said.get("message")?.as_str()?.to_owned()))
            .unwrap_or_else(|| String::from_utf8_lossy(&said).into_owned());
        Err(Error::DockerResponseServerError { status_code, message })
    }

    /// A connection, and how it has ended where it has not been used before.
    async fn sender(&self) -> Result<(SendRequest<Body>, Option<Ended>), Error> {
        loop {
            let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            match idle {
                Some(sender) if sender.is_ready() => return Ok((sender, None)),
                Some(_) => {}
                None => break,
            }
        }
        let began = Instant::now();
        let reached = self.reached.load(std::sync::atomic::Ordering::Relaxed);
        let stream = loop {
            match connect(&self.host).await {
                Ok(stream) => break stream,
                Err(_) if reached && began.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                Err(error) => return Err(error.into()),
            }
        };
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let (tell, ended) = oneshot::channel();
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::trace!(%error, "a connection to the engine has ended");
                let _ = tell.send(error);
            }
        });
        self.reached.store(true, std::sync::atomic::Ordering::Relaxed);
        Ok((sender, Some(ended)))
    }

    /// Keeps a connection for the next call, once its answer has been read.
    fn keep(self: &Arc<Self>, mut sender: SendRequest<Body>) {
        let pool = Arc::downgrade(self);
        tokio::spawn(async move {
            if sender.ready().await.is_ok()
                && let Some(pool) = pool.upgrade()
            {
                let mut idle = pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
                if idle.len() < CALLS {
                    idle.push(sender);
                }
            }
        });
    }
}

/// Why a call has failed: its connection may know more of it than the call, and either more than
/// its first words say.
async fn why(failed: hyper::Error, ended: Option<Ended>) -> Error {
    let known = match ended {
        Some(ended) => tokio::time::timeout(PAUSE, ended).await.ok().and_then(Result::ok),
        None => None,
    };
    let told = known.is_some();
    let cause = known.unwrap_or(failed);
    let mut source = std::error::Error::source(&cause);
    if source.is_none() && !told {
        return cause.into();
    }
    let mut text = cause.to_string();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    io::Error::other(text).into()
}
