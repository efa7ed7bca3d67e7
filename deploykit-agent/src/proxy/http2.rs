//! A client's HTTP/2 connection: many requests at once, each balanced on its own.

mod client;

use std::convert::Infallible;
use std::io::Cursor;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue, TE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::Shared;
use super::attempts::Attempts;
use super::backends::InFlight;
use super::buffer::Buffer;
use super::head::{Peer, is_hop_by_hop, is_idempotent};
use super::refusal::Refusal;
pub(crate) use client::Http2Client;
use client::{Outgoing, Unanswered};

type Answer = Response<UnsyncBoxBody<Bytes, hyper::Error>>;

/// Serves a client whose connection began with the bytes in `input`.
pub(crate) async fn serve(shared: &Arc<Shared>, input: Buffer, stream: TcpStream, peer: Peer) {
    let (read, write) = stream.into_split();
    let read = Cursor::new(input.filled().to_vec()).chain(read);
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(forward(&shared, request, peer).await) }
    });
    let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(tokio::io::join(read, write)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shared.closing.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

async fn forward(shared: &Shared, request: Request<Incoming>, peer: Peer) -> Answer {
    shared.backends.count_request();
    if request.method() == Method::CONNECT {
        return refuse(&Refusal::new(405, "this is no forward proxy"));
    }
    match attempt(shared, request, peer).await {
        Ok(answer) => answer,
        Err(refusal) => {
            shared.backends.count_failure();
            refuse(&refusal)
        }
    }
}

async fn attempt(
    shared: &Shared,
    mut request: Request<Incoming>,
    peer: Peer,
) -> Result<Answer, Refusal> {
    rewrite(&mut request, peer);
    let (head, body) = request.into_parts();
    // Only a request without a body can be made again.
    let repeatable = body.is_end_stream() && is_idempotent(head.method.as_str());
    let body = if body.is_end_stream() { Either::Right(Empty::new()) } else { Either::Left(body) };
    let copy = repeatable.then(|| head.clone());
    let mut request = Request::from_parts(head, body);
    let mut attempts = Attempts::new(shared);
    let mut retries = shared.settings.max_retries;
    loop {
        let backend = attempts.next().await.map_err(|unavailable| unavailable.refusal())?;
        let unanswered = match send(shared, &backend, request).await? {
            Ok(response) => {
                backend.succeeded();
                return Ok(answer(response, backend));
            }
            Err(unanswered) => *unanswered,
        };
        let Unanswered { unsent, reused, error } = unanswered;
        let refusal = Refusal::new(502, format!("the instance did not answer: {error}"));
        attempts.failed(&backend, reused, error);
        request = match (unsent, &copy) {
            (Some(unsent), _) => unsent,
            (None, Some(head)) if retries > 0 => {
                retries -= 1;
                Request::from_parts(head.clone(), Either::Right(Empty::new()))
            }
            _ => return Err(refusal),
        };
    }
}

async fn send(
    shared: &Shared,
    backend: &InFlight,
    request: Request<Outgoing>,
) -> Result<Result<Response<Incoming>, Box<Unanswered>>, Refusal> {
    let limit = shared.settings.connect_timeout;
    let sent = backend.backend().http2.send(backend.addr(), limit, request);
    match shared.settings.response_timeout {
        None => Ok(sent.await),
        Some(limit) => tokio::time::timeout(limit, sent)
            .await
            .map_err(|_| Refusal::new(504, "the instance has not answered in time")),
    }
}

/// Drops what belongs to one connection and says whom the request came from.
fn rewrite(request: &mut Request<Incoming>, peer: Peer) {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let trusted = peer.is_trusted();
    let headers = request.headers_mut();
    let trailers =
        headers.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    drop_hop_by_hop(headers);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(Ok(authority)) = authority.map(HeaderValue::try_from) {
        headers.insert(HOST, authority);
    }
    let client = peer.client.ip().to_string();
    let name = HeaderName::from_static("x-forwarded-for");
    let mut chain: Vec<_> = match trusted {
        true => headers.get_all(&name).iter().filter_map(|value| value.to_str().ok()).collect(),
        false => Vec::new(),
    };
    chain.push(&client);
    if let Ok(chain) = HeaderValue::try_from(chain.join(", ")) {
        headers.insert(name, chain);
    }
    let proto = HeaderName::from_static("x-forwarded-proto");
    if !(trusted && headers.contains_key(&proto)) {
        headers.insert(proto, HeaderValue::from_static("http"));
    }
    let host = HeaderName::from_static("x-forwarded-host");
    if !(trusted && headers.contains_key(&host))
        && let Some(value) = headers.get(HOST).cloned()
    {
        headers.insert(host, value);
    }
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(hyper::header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .chain(headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned())
        .filter(|name| name != HOST && name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

fn answer(response: Response<Incoming>, backend: InFlight) -> Answer {
    let (mut head, body) = response.into_parts();
    head.version = hyper::Version::HTTP_2;
    drop_hop_by_hop(&mut head.headers);
    Response::from_parts(head, Counted { body, _backend: backend }.boxed_unsync())
}

fn refuse(refusal: &Refusal) -> Answer {
    let body = Full::new(Bytes::from(refusal.text())).map_err(|never| match never {});
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = hyper::StatusCode::from_u16(refusal.status)
        .unwrap_or(hyper::StatusCode::INTERNAL_SERVER_ERROR);
    answer
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}

/// An answer's body, in flight at its backend until it has been read or dropped.
struct Counted {
    body: Incoming,
    _backend: InFlight,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
