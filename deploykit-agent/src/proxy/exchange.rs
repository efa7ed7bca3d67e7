//! One request and its answer over one connection to a backend.

use std::future::pending;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncWriteExt, ErrorKind};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Shared;
use super::body::{Body, Malformed};
use super::buffer::{Buffer, LARGE, SMALL};
use super::head::RequestHead;
use super::refusal::Refusal;
use super::response::{ResponseHead, read_response};

/// What the two directions of an exchange tell each other; both run in one task.
#[derive(Debug, Default)]
pub(crate) struct Flag(AtomicBool);

impl Flag {
    pub(crate) fn new(value: bool) -> Self {
        Self(AtomicBool::new(value))
    }

    pub(crate) fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, value: bool) {
        self.0.store(value, Ordering::Relaxed);
    }
}

/// How a request ended well.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The backend's connection can take another request.
    pub(crate) reusable: bool,
    /// The client's connection can take another request.
    pub(crate) keep_alive: bool,
    /// Both now speak another protocol.
    pub(crate) switched: bool,
}

/// How a request failed, which decides whether it may be sent again.
#[derive(Debug)]
pub(crate) enum Failed {
    /// Not a byte of it was written.
    NeverSent(io::Error),
    /// The connection ended before a byte of the answer.
    NoAnswer(io::Error),
    /// Nothing of an answer has reached the client: this one can.
    Refused(Refusal),
    /// The client went away.
    ClientGone,
    /// The answer broke off: the client's connection must not look as if it had ended well.
    BrokenOff,
}

/// The client's side of an exchange.
#[derive(Debug)]
pub(crate) struct ClientSide<'a> {
    pub(crate) stream: &'a mut TcpStream,
    pub(crate) input: &'a mut Buffer,
    pub(crate) request: &'a RequestHead,
    /// What of the request's body is still to come.
    pub(crate) body: &'a mut Body,
    /// Whether something of the body has been sent to any backend.
    pub(crate) body_sent: &'a Flag,
}

/// The buffers for the answer, kept from request to request.
#[derive(Debug, Default)]
pub(crate) struct AnswerSide {
    pub(crate) input: Buffer,
    pub(crate) out: Vec<u8>,
}

/// Writes `first` (the head, and what was at hand of the body), then forwards the rest of the body
/// and the answer at the same time, so that neither waits for the other.
pub(crate) async fn exchange(
    shared: &Shared,
    client: ClientSide<'_>,
    first: &[u8],
    backend: &mut TcpStream,
    answer: &mut AnswerSide,
) -> Result<Answered, Failed> {
    answer.input.clear();
    answer.out.clear();
    write_first(backend, first).await?;

    let uploaded = Flag::new(client.body.is_done());
    let done = Notify::new();
    let begun = Flag::new(false);
    let (client_read, client_write) = client.stream.split();
    let (backend_read, backend_write) = backend.split();
    let upload = Upload {
        from: client_read,
        input: client.input,
        to: backend_write,
        body: client.body,
        sent: client.body_sent,
        uploaded: &uploaded,
        done: &done,
    };
    let mut download = Download {
        shared,
        from: backend_read,
        to: client_write,
        request: client.request,
        answer,
        uploaded: &uploaded,
        begun: &begun,
    };
    let mut upload = pin!(upload.run());
    let head = tokio::select! {
        biased;
        head = download.run() => head?,
        failed = &mut upload => return Err(match failed {
            Failed::Refused(_) if begun.get() => Failed::BrokenOff,
            failed => failed,
        }),
    };
    if !uploaded.get() && head.status != 101 {
        // The answer came first. The backend may still want the rest of the request, until it closes.
        tokio::select! {
            () = done.notified() => {}
            _ = &mut upload => {}
            _ = download.answer.input.fill(&mut download.from, SMALL) => {}
            () = sleep(shared.settings.idle_timeout) => {}
        }
    }
    Ok(Answered {
        reusable: head.reusable && uploaded.get() && answer.input.is_empty(),
        keep_alive: head.keep_alive && uploaded.get(),
        switched: head.status == 101,
    })
}

async fn write_first(backend: &mut TcpStream, first: &[u8]) -> Result<(), Failed> {
    let mut written = 0;
    while written < first.len() {
        match backend.write(&first[written..]).await {
            Ok(n) => written += n,
            Err(error) if written == 0 => return Err(Failed::NeverSent(error)),
            Err(error) => return Err(Failed::NoAnswer(error)),
        }
    }
    Ok(())
}

struct Upload<'a> {
    from: ReadHalf<'a>,
    input: &'a mut Buffer,
    to: WriteHalf<'a>,
    body: &'a mut Body,
    sent: &'a Flag,
    uploaded: &'a Flag,
    done: &'a Notify,
}

impl Upload<'_> {
    /// Forwards the body, then watches whether the client goes away. Returns only on failure.
    async fn run(mut self) -> Failed {
        while !self.uploaded.get() {
            if self.input.is_empty() {
                let size = self.body.read_size(SMALL, LARGE);
                if !matches!(self.input.fill(&mut self.from, size).await, Ok(1..)) {
                    return Failed::ClientGone;
                }
            }
            let taken = match self.body.take(self.input.filled()) {
                Ok(taken) => taken,
                Err(Malformed(why)) => return Failed::Refused(Refusal::bad_request(why)),
            };
            self.sent.set(true);
            let bytes = &self.input.filled()[taken.from..taken.to];
            let mut result = self.to.write_all(bytes).await;
            self.input.consume(taken.consumed);
            if self.body.is_done() && result.is_ok() {
                result = self.to.write_all(self.body.tail()).await;
                self.uploaded.set(result.is_ok());
                self.done.notify_one();
            }
            if result.is_err() {
                // The backend wants no more, which is its right: its answer says what it thinks.
                return pending().await;
            }
        }
        self.input.shrink();
        while self.input.len() < SMALL {
            if !matches!(self.input.fill(&mut self.from, SMALL).await, Ok(1..)) {
                return Failed::ClientGone;
            }
        }
        pending().await
    }
}

struct Download<'a> {
    shared: &'a Shared,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    request: &'a RequestHead,
    answer: &'a mut AnswerSide,
    uploaded: &'a Flag,
    begun: &'a Flag,
}

impl Download<'_> {
    async fn run(&mut self) -> Result<ResponseHead, Failed> {
        let head = loop {
            let head = self.head().await?;
            if !head.is_interim() {
                break head;
            }
            self.flush().await?;
        };
        if head.status == 101 {
            self.flush().await?;
            return Ok(head);
        }
        self.body(&head).await?;
        self.answer.input.shrink();
        Ok(head)
    }

    /// Reads until a head is whole; its rewritten form is then in `out`.
    async fn head(&mut self) -> Result<ResponseHead, Failed> {
        loop {
            if !self.answer.input.is_empty() {
                let keep = !self.shared.closing.is_cancelled();
                let AnswerSide { input, out } = &mut *self.answer;
                match read_response(input.filled(), self.request, keep, out) {
                    Ok(Some(head)) => {
                        input.consume(head.length);
                        return Ok(head);
                    }
                    Ok(None) if input.len() < self.shared.settings.max_head => {}
                    Ok(None) => {
                        return Err(self.refused(502, "the head of its answer is too large"));
                    }
                    Err(why) => return Err(self.refused(502, why)),
                }
            }
            let limit = self.answer.input.len() + SMALL;
            let read = self.answer.input.fill(&mut self.from, limit);
            let read = match self.shared.settings.response_timeout {
                None => read.await,
                Some(limit) => match timeout(limit, read).await {
                    Ok(read) => read,
                    Err(_) if !self.uploaded.get() => continue,
                    Err(_) => return Err(self.refused(504, "it has not answered in time")),
                },
            };
            let error = match read {
                Ok(1..) => continue,
                Ok(0) => ErrorKind::UnexpectedEof.into(),
                Err(error) => error,
            };
            return Err(if self.answer.input.is_empty() && !self.begun.get() {
                Failed::NoAnswer(error)
            } else {
                self.refused(502, "its answer broke off in the head")
            });
        }
    }

    fn refused(&self, status: u16, why: &str) -> Failed {
        if self.begun.get() && self.request.old {
            return Failed::BrokenOff;
        }
        Failed::Refused(Refusal::new(
            status,
            format!("the instance's answer cannot be used: {why}"),
        ))
    }

    async fn flush(&mut self) -> Result<(), Failed> {
        self.begun.set(true);
        let result = self.to.write_all(&self.answer.out).await;
        self.answer.out.clear();
        result.map_err(|_| Failed::ClientGone)
    }

    async fn body(&mut self, head: &ResponseHead) -> Result<(), Failed> {
        let mut body = Body::new(head.framing, self.request.old);
        // What is at hand goes out with the head in one write.
        while !self.answer.input.is_empty() && !body.is_done() {
            self.collect(&mut body)?;
        }
        self.answer.out.extend_from_slice(if body.is_done() { body.tail() } else { &[] });
        self.flush().await?;
        while !body.is_done() {
            let size = body.read_size(SMALL, LARGE);
            match self.answer.input.fill(&mut self.from, size).await {
                Ok(1..) => {}
                Ok(0) if matches!(body, Body::UntilClose) => break,
                _ => return Err(Failed::BrokenOff),
            }
            while !self.answer.input.is_empty() && !body.is_done() {
                if self.answer.input.len() <= SMALL {
                    self.collect(&mut body)?;
                    continue;
                }
                let taken = body.take(self.answer.input.filled()).map_err(|_| Failed::BrokenOff)?;
                let bytes = &self.answer.input.filled()[taken.from..taken.to];
                self.to.write_all(bytes).await.map_err(|_| Failed::ClientGone)?;
                self.answer.input.consume(taken.consumed);
            }
            self.answer.out.extend_from_slice(if body.is_done() { body.tail() } else { &[] });
            if !self.answer.out.is_empty() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    /// Moves what is at hand of the body to the output.
    fn collect(&mut self, body: &mut Body) -> Result<(), Failed> {
        let AnswerSide { input, out } = &mut *self.answer;
        let taken = body.take(input.filled()).map_err(|_| Failed::BrokenOff)?;
        out.extend_from_slice(&input.filled()[taken.from..taken.to]);
        input.consume(taken.consumed);
        Ok(())
    }
}
