//! The server's side.

use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use super::{Answer, INSTANCE, LARGEST_BODY, Refusal, Request, VERSION, typed, variable};
use crate::Result;

/// What a service is: it answers requests.
pub trait Handler: Send + Sync + 'static {
    fn answer(&self, request: Request) -> impl Future<Output = Result<Answer, Refusal>> + Send;
}

/// Listens at `HOST`:`PORT`.
pub async fn listen() -> Result<TcpListener> {
    Ok(TcpListener::bind((variable("HOST")?, variable("PORT")?.parse()?)).await?)
}

/// Serves until SIGTERM, then takes its leave of those who find it by a registry, ends the requests
/// in flight, and returns.
pub async fn serve(
    service: &str,
    listener: TcpListener,
    handler: impl Handler,
    leave: Option<BoxFuture<'static, ()>>,
) -> Result<()> {
    let mut asked = signal(SignalKind::terminate())?;
    let server = Arc::new(Server {
        handler,
        instance: HeaderValue::from_str(&variable("DEPLOYKIT_INSTANCE")?)?,
        version: HeaderValue::from_str(&std::env::var("VERSION").unwrap_or_else(|_| "1".into()))?,
        unhealthy: std::env::var("UNHEALTHY").ok(),
        ending: AtomicBool::new(false),
    });
    println!("{service} listens at {}", listener.local_addr()?);

    let graceful = GracefulShutdown::new();
    let mut end = pin!(async {
        asked.recv().await;
        // Callers who keep their connections hear of the end with an answer: one whose request is
        // on its way when its connection is closed would have lost it.
        server.ending.store(true, Ordering::Relaxed);
        if let Some(leave) = leave {
            leave.await;
            // Who has not heard of it yet is still let in.
            tokio::time::sleep(HEARD).await;
        }
    });
    loop {
        let accepted = tokio::select! {
            biased; // Who waits to be let in when it ends still is.
            accepted = listener.accept() => accepted,
            () = &mut end => break,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, or a caller that has gone again: neither ends the service.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Without it small answers wait; a socket that refuses is only slower.
        stream.set_nodelay(true).ok();
        let server = server.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.respond(request).await.map(Full::new)) }
        });
        let http = hyper::server::conn::http1::Builder::new();
        let connection = graceful.watch(http.serve_connection(TokioIo::new(stream), service));
        // A connection that breaks is the caller's to notice.
        tokio::spawn(async move { connection.await.ok() });
    }
    drop(listener);
    let begun = Instant::now();
    while graceful.count() > 0 && begun.elapsed() < LINGER {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    graceful.shutdown().await;
    println!("{service} has ended its requests");
    Ok(())
}

struct Server<H> {
    handler: H,
    instance: HeaderValue,
    version: HeaderValue,
    unhealthy: Option<String>,
    /// Whether it has been asked to end: then each connection is closed with its next answer.
    ending: AtomicBool,
}

/// How long an idle connection is kept open for a last request.
const LINGER: Duration = Duration::from_secs(1);
/// How long those who follow a registry take to hear of a change, generously.
const HEARD: Duration = Duration::from_millis(500);

impl<H: Handler> Server<H> {
    async fn respond(&self, request: hyper::Request<Incoming>) -> Answer {
        let answer = match (request.uri().path(), &self.unhealthy) {
            ("/healthz", None) => Ok(typed(StatusCode::OK, "text/plain", "ok\n")),
            ("/healthz", Some(why)) => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, why)),
            _ => self.handle(request).await,
        };
        let mut answer = answer.unwrap_or_else(Refusal::into_answer);
        // The gateway passes on the headers of the service behind it.
        answer.headers_mut().entry(INSTANCE).or_insert_with(|| self.instance.clone());
        answer.headers_mut().entry(VERSION).or_insert_with(|| self.version.clone());
        if self.ending.load(Ordering::Relaxed) {
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        answer
    }

    async fn handle(&self, request: hyper::Request<Incoming>) -> Result<Answer, Refusal> {
        let (head, body) = request.into_parts();
        let body = Limited::new(body, LARGEST_BODY).collect().await;
        let body = body.map_err(|e| Refusal::new(StatusCode::BAD_REQUEST, e))?.to_bytes();
        self.handler.answer(Request::from_parts(head, body)).await
    }
}
