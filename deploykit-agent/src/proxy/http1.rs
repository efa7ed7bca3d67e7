//! A client's HTTP/1 connection: request after request.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::attempts::{Attempts, Unavailable};
use super::backends::Reuse;
use super::body::{Body, Malformed};
use super::buffer::{Buffer, SMALL};
use super::exchange::{AnswerSide, ClientSide, Failed, Flag, exchange};
use super::head::{Peer, RequestHead, read_request};
use super::refusal::Refusal;
use super::{Shared, http2, tunnel};

/// How long, and how much, is still read from a client that is told to stop: closing at once would
/// reset the connection, and the answer could be lost with it (RFC 9112 §9.6).
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 4 * 1024 * 1024;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What came instead of a request.
enum NoRequest {
    End,
    Http2,
    Refused(Refusal),
}

/// What becomes of the client's connection after a request.
enum After {
    Next,
    Close,
    /// Close only after the client has had a chance to read the answer.
    Linger,
    /// Close so that the client sees an error.
    Abort,
}

struct Connection<'a> {
    shared: &'a Shared,
    peer: Peer,
    client: TcpStream,
    input: Buffer,
    answer: AnswerSide,
    /// The head to forward, and what was at hand of the body.
    first: Vec<u8>,
}

/// Serves a client until its connection ends.
pub(crate) async fn serve(shared: &std::sync::Arc<Shared>, client: TcpStream, peer: Peer) {
    let mut connection = Connection {
        shared,
        peer,
        client,
        input: Buffer::default(),
        answer: AnswerSide::default(),
        first: Vec::new(),
    };
    let mut closing = pin!(shared.closing.cancelled());
    let mut idle = pin!(tokio::time::sleep(shared.settings.idle_timeout));
    loop {
        let request = connection.request(
            // Polled by every wait for a request, made once: no timer is set anew per request.
            |cx, until| {
                if closing.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                while idle.as_mut().poll(cx).is_ready() {
                    if Instant::now() >= until {
                        return Poll::Ready(());
                    }
                    idle.as_mut().reset(until);
                }
                Poll::Pending
            },
        );
        let after = match request.await {
            Ok(request) => {
                shared.backends.count_request();
                connection.forward(&request).await
            }
            Err(NoRequest::End) => After::Close,
            Err(NoRequest::Refused(refusal)) => connection.refuse(&refusal, true, false).await,
            Err(NoRequest::Http2) => {
                return http2::serve(shared, connection.input, connection.client, peer).await;
            }
        };
        match after {
            After::Next => {}
            After::Close => return,
            After::Linger => return linger(connection.client).await,
            After::Abort => {
                let _ = connection.client.set_zero_linger();
                return;
            }
        }
    }
}

impl Connection<'_> {
    /// Reads the next request head. `give_up` says when an idle connection is to be closed.
    async fn request(
        &mut self,
        mut give_up: impl FnMut(&mut std::task::Context<'_>, Instant) -> Poll<()>,
    ) -> Result<RequestHead, NoRequest> {
        if self.input.is_empty() {
            let mut until = None;
            let Self { client, input, shared, .. } = self;
            poll_fn(|cx| match input.poll_fill(client, SMALL, cx) {
                Poll::Ready(Ok(1..)) => Poll::Ready(Ok(())),
                Poll::Ready(_) => Poll::Ready(Err(NoRequest::End)),
                Poll::Pending => {
                    let until =
                        *until.get_or_insert_with(|| Instant::now() + shared.settings.idle_timeout);
                    give_up(cx, until).map(|()| Err(NoRequest::End))
                }
            })
            .await?;
        }
        let mut until = None;
        let mut searched = 0;
        loop {
            let bytes = self.input.filled();
            let preface = bytes.len().min(PREFACE.len());
            if bytes[..preface] == PREFACE[..preface] {
                if preface == PREFACE.len() {
                    return Err(NoRequest::Http2);
                }
            } else if searched == 0 || bytes[searched..].windows(4).any(|end| end == b"\r\n\r\n") {
                // Parsed at the first look, then only when the end has come, so that a client that
                // sends byte by byte does not cost a parse each.
                match read_request(bytes, self.peer, &mut self.first) {
                    Ok(Some(request)) => {
                        self.input.consume(request.length);
                        return Ok(request);
                    }
                    Ok(None) => {}
                    Err(refusal) => return Err(NoRequest::Refused(refusal)),
                }
            }
            searched = bytes.len().saturating_sub(3).max(1);
            if bytes.len() >= self.shared.settings.max_head {
                return Err(NoRequest::Refused(Refusal::new(431, "the head is too large")));
            }
            let until =
                *until.get_or_insert_with(|| Instant::now() + self.shared.settings.head_timeout);
            let limit = bytes.len() + SMALL;
            match timeout_at(until, self.input.fill(&mut self.client, limit)).await {
                Ok(Ok(1..)) => {}
                Ok(_) => return Err(NoRequest::End),
                Err(_) => {
                    return Err(NoRequest::Refused(Refusal::new(408, "the head took too long")));
                }
            }
        }
    }

    /// Sends the request to a backend, to further ones where that is safe, and the answer back.
    async fn forward(&mut self, request: &RequestHead) -> After {
        let body_sent = Flag::default();
        let mut body = Body::new(request.framing, false);
        if let Err(Malformed(why)) = self.take_body(&mut body, &body_sent) {
            return self.refuse(&Refusal::bad_request(why), true, false).await;
        }
        let reuse = if request.idempotent { Reuse::Any } else { Reuse::Fresh };
        let mut attempts = Attempts::new(self.shared);
        let mut retries = self.shared.settings.max_retries;
        let refusal = loop {
            let (backend, mut stream, reused) = match attempts.connect(reuse).await {
                Ok(connected) => connected,
                Err(unavailable) => break unavailable.refusal(),
            };
            let client = ClientSide {
                stream: &mut self.client,
                input: &mut self.input,
                request,
                body: &mut body,
                body_sent: &body_sent,
            };
            let failed =
                match exchange(self.shared, client, &self.first, &mut stream, &mut self.answer)
                    .await
                {
                    Ok(answered) if answered.switched => {
                        backend.succeeded();
                        self.tunnel(&mut stream).await;
                        return After::Close;
                    }
                    Ok(answered) => {
                        backend.succeeded();
                        if answered.reusable {
                            backend.put_idle(stream);
                        }
                        return match answered.keep_alive {
                            true => After::Next,
                            false if body.is_done() => After::Close,
                            false => After::Linger,
                        };
                    }
                    Err(failed) => failed,
                };
            match failed {
                Failed::NeverSent(error) => attempts.failed(&backend, reused, error),
                Failed::NoAnswer(error) => {
                    let again = request.idempotent && !body_sent.get() && retries > 0;
                    let refusal =
                        Refusal::new(502, format!("the instance did not answer: {error}"));
                    attempts.failed(&backend, reused, error);
                    if !again {
                        break refusal;
                    }
                    retries -= 1;
                }
                Failed::Refused(refusal) => break refusal,
                Failed::ClientGone => return After::Close,
                Failed::BrokenOff => {
                    self.shared.backends.count_failure();
                    return After::Abort;
                }
            }
        };
        if refusal.status >= 500 {
            self.shared.backends.count_failure();
        }
        self.refuse(&refusal, !request.keep_alive || !body.is_done(), request.is_head).await
    }

    /// Puts what is at hand of the request's body behind its head, to go out in one write.
    fn take_body(&mut self, body: &mut Body, sent: &Flag) -> Result<(), Malformed> {
        while !self.input.is_empty() && !body.is_done() {
            let taken = body.take(self.input.filled())?;
            self.first.extend_from_slice(&self.input.filled()[taken.from..taken.to]);
            self.input.consume(taken.consumed);
            sent.set(true);
        }
        if body.is_done() {
            self.first.extend_from_slice(body.tail());
        }
        Ok(())
    }

    async fn refuse(&mut self, refusal: &Refusal, close: bool, head_only: bool) -> After {
        self.answer.out.clear();
        let close = close || self.shared.closing.is_cancelled();
        refusal.write(&mut self.answer.out, close, head_only);
        match self.client.write_all(&self.answer.out).await {
            Ok(()) if close => After::Linger,
            Ok(()) => After::Next,
            Err(_) => After::Close,
        }
    }

    /// After `101 Switching Protocols` the bytes pass both ways as they come.
    async fn tunnel(&mut self, backend: &mut TcpStream) {
        let early = async {
            self.client.write_all(self.answer.input.filled()).await?;
            backend.write_all(self.input.filled()).await?;
            io::Result::Ok(())
        };
        if early.await.is_ok() {
            self.input = Buffer::default();
            self.answer = AnswerSide::default();
            tunnel::tunnel(&mut self.client, backend).await;
        }
    }
}

impl Unavailable {
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::new(
            503,
            match &self.0 {
                None => "no instance of the service is ready".to_owned(),
                Some(error) => format!("no instance of the service takes connections: {error}"),
            },
        )
    }
}

async fn linger(mut client: TcpStream) {
    let until = Instant::now() + LINGER;
    if client.shutdown().await.is_ok() {
        let rest = &mut (&mut client).take(LINGER_BYTES);
        let _ = timeout_at(until, tokio::io::copy(rest, &mut tokio::io::sink())).await;
    }
}
