//! Scripted peers and a client that never retries.
#![allow(dead_code, unreachable_pub, missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use deploykit_agent::proxy::{BackendAddress, Mode, ServiceProxy, Settings};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Generous: only a hang reaches it.
pub const DEADLINE: Duration = Duration::from_secs(30);

pub async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(DEADLINE, future).await.expect("hangs")
}

/// Polls until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

/// A server whose connections end with it, as those of a killed process do.
pub struct Origin {
    pub addr: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Origin {
    /// Runs `handler` for each connection.
    pub async fn raw<F, R>(handler: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        Self::raw_at("127.0.0.1:0".parse().unwrap(), handler).await
    }

    pub async fn raw_at<F, R>(addr: SocketAddr, handler: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + Sync + 'static,
        R: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind(addr).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let count = connections.clone();
        let task = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        count.fetch_add(1, Ordering::SeqCst);
                        tasks.spawn(handler(accepted.unwrap().0));
                    }
                    Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                }
            }
        });
        Self { addr, connections, task }
    }

    /// Reads one head, sends `answer`, and keeps the connection for the next.
    pub async fn canned(answer: &'static str) -> Self {
        Self::raw(move |mut stream| async move {
            loop {
                read_head(&mut stream).await?;
                stream.write_all(answer.as_bytes()).await?;
            }
        })
        .await
    }

    /// Answers with the head it got.
    pub async fn mirror() -> Self {
        Self::raw(|mut stream| async move {
            loop {
                let head = read_head(&mut stream).await?;
                let answer =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len());
                stream.write_all(answer.as_bytes()).await?;
            }
        })
        .await
    }

    /// A real server (HTTP/1.1 and HTTP/2): `/N/LEN` is answered by LEN bytes made from N, after
    /// `delay`; `x-instance` names it. The request's body must be made from N too.
    pub async fn real(id: &'static str, delay: Duration) -> Self {
        Self::real_at("127.0.0.1:0".parse().unwrap(), id, delay).await
    }

    pub async fn real_at(addr: SocketAddr, id: &'static str, delay: Duration) -> Self {
        Self::raw_at(addr, move |stream| async move {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let (seed, length) = parse_path(request.uri().path());
                let body = request.into_body().collect().await.map(|body| body.to_bytes());
                tokio::time::sleep(delay).await;
                let status = match body {
                    Ok(body) if body.is_empty() || body == pattern(seed, body.len()) => 200,
                    _ => 400,
                };
                let answer = Response::builder().status(status).header("x-instance", id);
                Ok::<_, Infallible>(answer.body(Full::new(pattern(seed, length))).unwrap())
            });
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
            Ok(())
        })
        .await
    }

    pub fn kill(&self) {
        self.task.abort();
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.kill();
    }
}

fn parse_path(path: &str) -> (u64, usize) {
    let mut parts = path.trim_matches('/').split('/');
    let mut next = || parts.next().and_then(|part| part.parse().ok()).unwrap_or(0_u64);
    (next(), usize::try_from(next()).unwrap())
}

/// `length` bytes that differ with `seed` and position.
pub fn pattern(seed: u64, length: usize) -> Bytes {
    let byte = |at: usize| ((seed as usize).wrapping_mul(31) ^ (at / 7) ^ (at >> 9)) as u8;
    (0..length).map(byte).collect::<Vec<_>>().into()
}

/// Bytes up to and with the empty line.
pub async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8(head).unwrap())
}

pub fn proxy(mode: Mode) -> ServiceProxy {
    ServiceProxy::bind("127.0.0.1:0".parse().unwrap(), mode).unwrap()
}

pub fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

pub fn proxy_with(mode: Mode, change: impl FnOnce(&mut Settings)) -> ServiceProxy {
    ServiceProxy::bind_with("127.0.0.1:0".parse().unwrap(), mode, settings(change)).unwrap()
}

/// A proxy over the given servers, with ids `a`, `b`, …
pub fn proxy_over(origins: &[&Origin]) -> ServiceProxy {
    let proxy = proxy(Mode::Http);
    proxy.set_backends(addresses(origins));
    proxy
}

pub fn addresses(origins: &[&Origin]) -> Vec<BackendAddress> {
    origins.iter().zip('a'..).map(|(o, id)| BackendAddress::new(id, o.addr)).collect()
}

pub async fn connect(proxy: &ServiceProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

/// Sends `request` and reads until the proxy closes.
pub async fn send_all(proxy: &ServiceProxy, request: impl AsRef<[u8]>) -> String {
    let mut stream = connect(proxy).await;
    let mut answer = Vec::new();
    within(async {
        stream.write_all(request.as_ref()).await.unwrap();
        stream.read_to_end(&mut answer).await.unwrap();
    })
    .await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// Sends `request` on a kept connection and reads one answer with its `Content-Length` body.
pub async fn send_one(stream: &mut TcpStream, request: impl AsRef<[u8]>) -> (String, String) {
    within(async {
        stream.write_all(request.as_ref()).await.unwrap();
        let head = read_head(stream).await.unwrap();
        let length = head
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok()
            })
            .unwrap_or(0);
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        (head, String::from_utf8_lossy(&body).into_owned())
    })
    .await
}

/// A client of one connection, which connects again only when the answer before said so.
pub struct Client {
    addr: SocketAddr,
    sender: Option<hyper::client::conn::http1::SendRequest<Full<Bytes>>>,
}

impl Client {
    pub fn new(proxy: &ServiceProxy) -> Self {
        Self::at(proxy.address())
    }

    pub fn at(addr: SocketAddr) -> Self {
        Self { addr, sender: None }
    }

    /// One request; the answer's body is checked. The id of the instance, or what went wrong.
    pub async fn request(
        &mut self,
        method: &str,
        seed: u64,
        length: usize,
        body: usize,
    ) -> Result<String, String> {
        if self.sender.as_ref().is_none_or(|sender| sender.is_closed()) {
            let stream = TcpStream::connect(self.addr).await.map_err(|e| e.to_string())?;
            let (sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            self.sender = Some(sender);
        }
        let sender = self.sender.as_mut().unwrap();
        let request = Request::builder()
            .method(method)
            .uri(format!("/{seed}/{length}"))
            .header("host", "service")
            .body(Full::new(pattern(seed, body)))
            .unwrap();
        let answered = async {
            sender.ready().await?;
            let response = sender.send_request(request).await?;
            let (head, body) = response.into_parts();
            Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
        };
        let (head, body) = within(answered).await.map_err(|e| format!("{method} {seed}: {e:?}"))?;
        if head.headers.get("connection").is_some_and(|value| value == "close") {
            self.sender = None;
        }
        if head.status != 200 {
            return Err(format!("{method} {seed}: {} {body:?}", head.status));
        }
        if method != "HEAD" && body != pattern(seed, length) {
            return Err(format!("{method} {seed}: wrong body of {} bytes", body.len()));
        }
        Ok(head.headers["x-instance"].to_str().unwrap().to_owned())
    }
}

/// Requests per instance, and what went wrong.
#[derive(Debug, Default)]
pub struct Load {
    pub served: std::collections::BTreeMap<String, usize>,
    pub failed: Vec<String>,
}

impl Load {
    pub fn total(&self) -> usize {
        self.served.values().sum()
    }
}

/// Runs `connections` clients over the proxy until `stop`, each at least `least` requests.
pub fn load(
    proxy: &ServiceProxy,
    connections: u64,
    least: u64,
    stop: Arc<std::sync::atomic::AtomicBool>,
    request: fn(u64) -> (&'static str, usize, usize),
) -> JoinHandle<Load> {
    load_at(proxy.address(), connections, least, stop, request)
}

pub fn load_at(
    addr: SocketAddr,
    connections: u64,
    least: u64,
    stop: Arc<std::sync::atomic::AtomicBool>,
    request: fn(u64) -> (&'static str, usize, usize),
) -> JoinHandle<Load> {
    let clients: Vec<_> = (0..connections).map(|_| Client::at(addr)).collect();
    tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        for (index, mut client) in (0..).zip(clients) {
            let stop = stop.clone();
            tasks.spawn(async move {
                let mut load = Load::default();
                let mut count = 0;
                while count < least || !stop.load(Ordering::SeqCst) {
                    let seed = count * connections + index;
                    let (method, length, body) = request(seed);
                    match client.request(method, seed, length, body).await {
                        Ok(instance) => *load.served.entry(instance).or_default() += 1,
                        Err(error) => load.failed.push(error),
                    }
                    count += 1;
                }
                load
            });
        }
        let mut all = Load::default();
        while let Some(load) = tasks.join_next().await {
            let load = load.unwrap();
            load.served.into_iter().for_each(|(id, n)| *all.served.entry(id).or_default() += n);
            all.failed.extend(load.failed);
        }
        all
    })
}
