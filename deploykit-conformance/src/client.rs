//! The client that sends requests to what the kit has deployed.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::{Address, AppName, ServiceName};
use deploykit_core::{Error, ErrorKind, Result, memory};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Sends one request after another to a service, over one connection where there are connections.
/// It never sends a request twice.
#[async_trait]
pub trait Client: Send + Sync {
    /// Another one, with a connection of its own.
    fn another(&self) -> Box<dyn Client>;

    /// Sends a request to the first port of a service, which is published at `address`.
    ///
    /// # Errors
    /// Where no answer came.
    async fn send(
        &mut self,
        app: &AppName,
        service: &ServiceName,
        address: &Address,
        request: (&str, &str, &str),
    ) -> Result<Answer>;
}

/// HTTP/1.1 over TCP.
#[derive(Default)]
pub(crate) struct HttpClient(Option<(Address, http1::SendRequest<Full<Bytes>>)>);

fn broken(address: &Address, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let error: Box<dyn std::error::Error + Send + Sync> = error.into();
    // A break's cause is a level further down.
    let message = match error.source() {
        Some(cause) => format!("{error} ({cause})"),
        None => error.to_string(),
    };
    Error::new(ErrorKind::Failed, "send a request", message).with("address", address)
}

impl HttpClient {
    async fn exchange(
        &mut self,
        address: &Address,
        (method, path, body): (&str, &str, &str),
    ) -> Result<Answer> {
        let fail = |error: hyper::Error| broken(address, error);
        let known = self.0.take().filter(|(at, sender)| at == address && !sender.is_closed());
        let mut sender = match known {
            Some((_, sender)) => sender,
            None => {
                let target = (address.host.as_str(), address.port);
                let stream = TcpStream::connect(target).await.map_err(|e| broken(address, e))?;
                stream.set_nodelay(true).map_err(|e| broken(address, e))?;
                let (sender, connection) =
                    http1::handshake(TokioIo::new(stream)).await.map_err(fail)?;
                tokio::spawn(connection);
                sender
            }
        };
        let method = Method::from_bytes(method.as_bytes()).map_err(|e| broken(address, e))?;
        let request = Request::builder().method(method).uri(path).header("host", &address.host);
        let request = request
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
            .map_err(|e| broken(address, e))?;
        let response = sender.send_request(request).await.map_err(fail)?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.map_err(fail)?.to_bytes();
        if sender.ready().await.is_ok() {
            self.0 = Some((address.clone(), sender));
        }
        Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
    }
}

#[async_trait]
impl Client for HttpClient {
    fn another(&self) -> Box<dyn Client> {
        Box::new(Self::default())
    }

    async fn send(
        &mut self,
        _: &AppName,
        _: &ServiceName,
        address: &Address,
        request: (&str, &str, &str),
    ) -> Result<Answer> {
        timeout(PATIENCE, self.exchange(address, request))
            .await
            .unwrap_or_else(|_| Err(broken(address, "no answer within 20 s")))
    }
}

#[async_trait]
impl Client for memory::Host {
    fn another(&self) -> Box<dyn Client> {
        Box::new(self.clone())
    }

    async fn send(
        &mut self,
        app: &AppName,
        service: &ServiceName,
        _: &Address,
        (method, path, body): (&str, &str, &str),
    ) -> Result<Answer> {
        let answer = self.request(app, service, method, path, body).await?;
        Ok(Answer { status: answer.status, body: answer.body })
    }
}
