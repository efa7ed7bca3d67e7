//! Connections to backends for requests that came over HTTP/2.
//!
//! A backend that speaks HTTP/2 with prior knowledge (gRPC servers do) gets them over one shared
//! connection; any other one gets them over HTTP/1.1.

use std::io;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use crate::proxy::attempts::connect;
use crate::proxy::backends::lock;

/// The body of a request to a backend.
pub(crate) type Outgoing = Either<Incoming, Empty<Bytes>>;

/// The client preface of RFC 9113 §3.4 with an empty SETTINGS frame.
const HELLO: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A server that has not answered the preface by then is taken for one of HTTP/1.
const HELLO_LIMIT: Duration = Duration::from_secs(1);

/// How long a "no" is believed: a server that was just starting or ending says it too.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What is known of one backend's protocol, and the connections to it.
#[derive(Debug, Default)]
pub(crate) struct Http2Client {
    /// Whether it speaks HTTP/2, and when that was found out.
    known: Mutex<Option<(bool, Instant)>>,
    shared: Mutex<Option<http2::SendRequest<Outgoing>>>,
    idle: Mutex<Vec<http1::SendRequest<Outgoing>>>,
}

/// A request was not answered.
pub(crate) struct Unanswered {
    /// The request, when nothing of it was sent.
    pub(crate) unsent: Option<Request<Outgoing>>,
    /// The connection had served requests before.
    pub(crate) reused: bool,
    pub(crate) error: io::Error,
}

impl Unanswered {
    fn connect(request: Request<Outgoing>, error: io::Error) -> Self {
        Self { unsent: Some(request), reused: false, error }
    }
}

impl Http2Client {
    /// Sends one request. Its URI is absolute, as HTTP/2 has it.
    pub(crate) async fn send(
        &self,
        addr: SocketAddr,
        limit: Duration,
        request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Box<Unanswered>> {
        let sent = match self.speaks_http2(addr, limit).await {
            Ok(true) => self.send_http2(addr, limit, request).await,
            Ok(false) => self.send_http1(addr, limit, request).await,
            Err(error) => Err(Unanswered::connect(request, error)),
        };
        sent.map_err(Box::new)
    }

    async fn speaks_http2(&self, addr: SocketAddr, limit: Duration) -> io::Result<bool> {
        let known = *lock(&self.known);
        if let Some((speaks, since)) = known
            && (speaks || since.elapsed() < ASK_AGAIN)
        {
            return Ok(speaks);
        }
        let speaks = speaks_http2(addr, limit).await?;
        *lock(&self.known) = Some((speaks, Instant::now()));
        Ok(speaks)
    }

    async fn send_http2(
        &self,
        addr: SocketAddr,
        limit: Duration,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let open = lock(&self.shared).clone().filter(|sender| !sender.is_closed());
        let reused = open.is_some();
        let mut sender = match open {
            Some(sender) => sender,
            None => match connect_http2(addr, limit).await {
                Ok(sender) => {
                    *lock(&self.shared) = Some(sender.clone());
                    sender
                }
                Err(error) => return Err(Unanswered::connect(request, error)),
            },
        };
        *request.version_mut() = Version::HTTP_2;
        sender.try_send_request(request).await.map_err(|mut error| Unanswered {
            unsent: error.take_message(),
            reused,
            error: io::Error::other(error.into_error()),
        })
    }

    async fn send_http1(
        &self,
        addr: SocketAddr,
        limit: Duration,
        mut request: Request<Outgoing>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let idle = self.take_idle();
        let reused = idle.is_some();
        let mut sender = match idle {
            Some(sender) => sender,
            None => match connect_http1(addr, limit).await {
                Ok(sender) => sender,
                Err(error) => return Err(Unanswered::connect(request, error)),
            },
        };
        *request.version_mut() = Version::HTTP_11;
        let uri = std::mem::take(request.uri_mut());
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        *request.uri_mut() = target.parse().unwrap_or_default();
        let sent = sender.try_send_request(request).await;
        match sent {
            Ok(response) => {
                // Becomes ready again once the answer has been read.
                lock(&self.idle).push(sender);
                Ok(response)
            }
            Err(mut error) => Err(Unanswered {
                unsent: error.take_message().map(|mut request| {
                    *request.uri_mut() = uri;
                    request
                }),
                reused,
                error: io::Error::other(error.into_error()),
            }),
        }
    }

    fn take_idle(&self) -> Option<http1::SendRequest<Outgoing>> {
        let mut idle = lock(&self.idle);
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().position(http1::SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }
}

/// Asks on a connection of its own, since an HTTP/1 server answers the preface with an error and
/// may close. The server's first frame must be SETTINGS (RFC 9113 §3.4).
async fn speaks_http2(addr: SocketAddr, limit: Duration) -> io::Result<bool> {
    let mut stream = connect(addr, limit).await?;
    let mut frame = [0; 9];
    let answer = async {
        stream.write_all(HELLO).await?;
        stream.read_exact(&mut frame).await
    };
    let answered = matches!(timeout(HELLO_LIMIT, answer).await, Ok(Ok(_)));
    Ok(answered && frame[3..] == [4, 0, 0, 0, 0, 0])
}

async fn connect_http2(
    addr: SocketAddr,
    limit: Duration,
) -> io::Result<http2::SendRequest<Outgoing>> {
    let stream = TokioIo::new(connect(addr, limit).await?);
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .handshake(stream)
        .await
        .map_err(io::Error::other)?;
    // Ends with its last sender or with the connection.
    tokio::spawn(connection);
    Ok(sender)
}

async fn connect_http1(
    addr: SocketAddr,
    limit: Duration,
) -> io::Result<http1::SendRequest<Outgoing>> {
    let stream = TokioIo::new(connect(addr, limit).await?);
    let (sender, connection) =
        http1::Builder::new().handshake(stream).await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}
