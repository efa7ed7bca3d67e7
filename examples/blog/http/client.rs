//! The client's side.

use std::time::Duration;

use bytes::Bytes;
use deploykit_registry::Balancer;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{HOST, HeaderValue};
use hyper::{Method, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::net::TcpStream;

use super::{Answer, LARGEST_BODY, Refusal, Request, request, variable};
use crate::{Result, registry};

/// Longer than the data of a store that has died takes to be found at another one.
const DEADLINE: Duration = Duration::from_secs(18);
const ATTEMPTS: u32 = 6;
/// Before the second attempt; before the third twice as long, and so on.
const PAUSE: Duration = Duration::from_millis(20);

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

/// Another service of the app.
pub struct Peer {
    name: &'static str,
    place: Place,
}

enum Place {
    /// At the address that the environment tells: the backend balances.
    Fixed(String),
    /// At the addresses that the registry knows.
    Found(Balancer),
}

impl Peer {
    pub async fn of(name: &'static str) -> Result<Self> {
        if let Some(registry) = registry::open().await? {
            let found = registry::follow(&*registry, name).await?;
            return Ok(Self { name, place: Place::Found(found) });
        }
        let prefix = name.to_uppercase();
        let host = variable(&format!("{prefix}_SERVICE_HOST"))?;
        let port = variable(&format!("{prefix}_SERVICE_PORT"))?;
        Ok(Self { name, place: Place::Fixed(format!("{host}:{port}")) })
    }

    /// Sends a request; again where nothing of it was sent, or where it may be sent twice.
    ///
    /// An answer is passed on when it is there as a whole, so one that broke off does no harm.
    pub async fn send(&self, request: Request) -> Result<Answer, Refusal> {
        let mut failure = String::new();
        for attempt in 0..ATTEMPTS {
            tokio::time::sleep(PAUSE * attempt).await;
            match self.ask(&request).await {
                Ok(answer) => return Ok(answer),
                Err(Failed { unsent, why }) => {
                    failure = why;
                    if !unsent && !request.method().is_idempotent() {
                        break;
                    }
                }
            }
        }
        let why = format!("{}: {failure}", self.name);
        eprintln!("no answer from {why}");
        Err(Refusal::new(StatusCode::BAD_GATEWAY, why))
    }

    async fn ask(&self, request: &Request) -> Result<Answer, Failed> {
        let unsent = |error: &dyn ToString| Failed { unsent: true, why: error.to_string() };
        let (address, picked) = match &self.place {
            Place::Fixed(address) => (address.clone(), None),
            Place::Found(balancer) => {
                let picked = balancer.pick().map_err(|e| unsent(&e))?;
                (picked.instance().address.to_string(), Some(picked))
            }
        };
        let asked = async {
            let mut connection = Connection::open(&address).await.map_err(|e| unsent(&e))?;
            let answer = connection.send(request.clone()).await;
            answer.map_err(|e| Failed { unsent: false, why: e.to_string() })
        };
        let asked = tokio::time::timeout(DEADLINE, asked).await;
        let asked = asked.unwrap_or_else(|e| Err(Failed { unsent: false, why: e.to_string() }));
        match (picked, &asked) {
            (Some(picked), Ok(_)) => picked.succeeded(),
            (Some(picked), Err(_)) => picked.failed(),
            (None, _) => {}
        }
        match asked {
            // It has done nothing, and says that another one would.
            Ok(answer) if answer.status() == StatusCode::MISDIRECTED_REQUEST => {
                let body = String::from_utf8_lossy(answer.body());
                Err(Failed { unsent: true, why: format!("{address} refers to others: {body}") })
            }
            asked => asked
                .map_err(|failed| Failed { why: format!("{address}: {}", failed.why), ..failed }),
        }
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Refusal> {
        self.call(Method::GET, path, Bytes::new()).await
    }

    pub async fn put(&self, path: &str, body: &impl Serialize) -> Result<Answer, Refusal> {
        let body = serde_json::to_vec(body).unwrap_or_default();
        self.call(Method::PUT, path, body.into()).await
    }

    async fn call(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Refusal> {
        let request = request(method, path, body)
            .map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e))?;
        self.send(request).await
    }
}

/// Why there is no answer.
struct Failed {
    /// Whether the other side cannot have begun to act on the request.
    unsent: bool,
    why: String,
}
