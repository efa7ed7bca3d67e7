//! The client's side.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

use super::{Answer, LARGEST_BODY, Refusal, Request, request, variable};
use crate::Result;

const DEADLINE: Duration = Duration::from_secs(10);

/// A connection as a client: one request after the other.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    pub async fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        // How it ends shows in the answer to the request that it cuts off.
        tokio::spawn(async move { connection.await.ok() });
        Ok(Self { sender, host: HeaderValue::from_str(address)? })
    }

    /// Whether the other side has closed it.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request once and reads the whole answer.
    pub async fn send(&mut self, mut request: Request) -> Result<Answer> {
        request.headers_mut().insert(HOST, self.host.clone());
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request.map(Full::new)).await?.into_parts();
        let body = Limited::new(body, LARGEST_BODY).collect().await?.to_bytes();
        Ok(Answer::from_parts(head, body))
    }
}

/// Sends a request on a connection of its own, once.
pub async fn send(address: &str, request: Request) -> Result<Answer> {
    let answer = async { Connection::open(address).await?.send(request).await };
    tokio::time::timeout(DEADLINE, answer).await?
}

/// Another service of the app, at the address that the environment tells.
pub struct Peer {
    name: &'static str,
    address: String,
}

impl Peer {
    pub fn of(name: &'static str) -> Result<Self> {
        let prefix = name.to_uppercase();
        let host = variable(&format!("{prefix}_SERVICE_HOST"))?;
        let port = variable(&format!("{prefix}_SERVICE_PORT"))?;
        Ok(Self { name, address: format!("{host}:{port}") })
    }

    /// Sends a request; where that changes nothing on the other side, up to three times.
    ///
    /// An answer is passed on when it is there as a whole, so one that broke off does no harm.
    pub async fn send(&self, request: Request) -> Result<Answer, Refusal> {
        let attempts = if request.method().is_safe() { 3 } else { 1 };
        let mut failure = String::new();
        for _ in 0..attempts {
            match send(&self.address, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error.to_string(),
            }
        }
        let why = format!("{} at {}: {failure}", self.name, self.address);
        eprintln!("no answer from {why}");
        Err(Refusal::new(StatusCode::BAD_GATEWAY, why))
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Refusal> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Refusal> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.call(Method::POST, path, body.into()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Refusal> {
        let request = request(method, path, body)
            .map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e))?;
        self.send(request).await
    }
}
