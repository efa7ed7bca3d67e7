//! One stable address for a service, balanced over its living instances.
//!
//! HTTP is balanced per request (HTTP/1.1, and HTTP/2 with prior knowledge, told apart by its
//! preface), everything else per connection. The set of backends changes live.
//!
//! What is retried, and why that is safe:
//! * a request of which no byte was written (the connection was refused, or an idle pooled one had
//!   been closed) goes to another backend, whatever its method;
//! * an idempotent request ([RFC 9110 §9.2.2]) without a body, or with one of which nothing was
//!   sent, goes to another backend when the connection ended before a byte of the answer;
//! * nothing else is ever sent twice.
//!
//! A client that ends its side of an HTTP connection has gone away: its request is given up, at the
//! instance too. In TCP mode, and after an upgrade, each side may end on its own.
//!
//! A request over HTTP/2 goes to the instance over HTTP/2 where it speaks that with prior knowledge
//! (gRPC servers do), else over HTTP/1.1; a request over HTTP/1 goes over HTTP/1.1. `h2c` by
//! `Upgrade` is not offered: [RFC 9113 §3.1] has dropped it.
//!
//! ```
//! use deploykit_agent::proxy::{BackendAddress, Mode, ServiceProxy};
//! use std::time::Duration;
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//! use tokio::net::{TcpListener, TcpStream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! // An instance that greets each connection.
//! let instance = TcpListener::bind("127.0.0.1:0").await?;
//! let addr = instance.local_addr()?;
//! tokio::spawn(async move {
//!     while let Ok((mut stream, _)) = instance.accept().await {
//!         let _ = stream.write_all(b"hello").await;
//!     }
//! });
//!
//! let proxy = ServiceProxy::bind("127.0.0.1:0".parse().unwrap(), Mode::Tcp)?;
//! proxy.set_backends([BackendAddress::new("greeter-1", addr)]);
//!
//! let mut text = String::new();
//! TcpStream::connect(proxy.address()).await?.read_to_string(&mut text).await?;
//! assert_eq!(text, "hello");
//!
//! assert_eq!(proxy.drain("greeter-1", Duration::from_secs(5)).await, 0);
//! proxy.shutdown(Duration::from_secs(5)).await;
//! # Ok(())
//! # }
//! ```
//!
//! [RFC 9113 §3.1]: https://www.rfc-editor.org/rfc/rfc9113#section-3.1
//! [RFC 9110 §9.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2

mod attempts;
mod backends;
mod body;
mod buffer;
mod exchange;
mod head;
mod http1;
mod http2;
mod listener;
mod refusal;
mod response;
mod tunnel;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use backends::{BackendAddress, BackendStats, Stats};

/// What the proxy balances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Each HTTP request on its own.
    Http,
    /// Each TCP connection as a whole.
    Tcp,
}

/// Deadlines and limits of a [`ServiceProxy`]; [`Settings::default`] suits most services.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// How long a request waits for a backend to appear or to accept a connection before it is
    /// answered with 503. Default 5 s.
    pub hold: Duration,
    /// How long one attempt to connect to a backend may take. Default 2 s.
    pub connect_timeout: Duration,
    /// How long a backend may take until the head of its answer, else 504. Default: no limit.
    pub response_timeout: Option<Duration>,
    /// How long a client may take to send a request head once it has begun, else 408. Default 10 s.
    pub head_timeout: Duration,
    /// How long an idle keep-alive connection of a client is kept. Default 75 s.
    pub idle_timeout: Duration,
    /// The largest request or response head in bytes. Default 64 KiB.
    pub max_head: usize,
    /// How often an idempotent request that got no byte of answer is sent again. Default 2.
    pub max_retries: u32,
    /// How long a backend that refuses or resets is left out the first time; doubles with each
    /// further failure in a row up to a hundredfold. Default 100 ms.
    pub ejection: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hold: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(2),
            response_timeout: None,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            max_head: 64 * 1024,
            max_retries: 2,
            ejection: Duration::from_millis(100),
        }
    }
}

/// What every connection of one proxy shares.
#[derive(Debug)]
struct Shared {
    address: SocketAddr,
    settings: Settings,
    backends: backends::Backends,
    /// Cancelled when no new request is taken any more.
    closing: CancellationToken,
}

/// A listener that balances over backends; see the [module documentation](self).
///
/// It serves on the runtime it was bound in, and stops at once when dropped; [`shutdown`] lets
/// requests in flight end first. Its methods may be called from any thread or runtime. It uses the
/// processor best on a `current_thread` runtime in a thread of its own, since then no request
/// wakes another thread.
///
/// [`shutdown`]: ServiceProxy::shutdown
#[derive(Debug)]
pub struct ServiceProxy {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl ServiceProxy {
    /// Listens on `address` (port 0: the system chooses) with the default [`Settings`].
    ///
    /// # Errors
    /// The error of the socket, usually that the address is in use.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn bind(address: SocketAddr, mode: Mode) -> io::Result<Self> {
        Self::bind_with(address, mode, Settings::default())
    }

    /// Like [`bind`](Self::bind), with settings of one's own.
    ///
    /// # Errors
    /// The error of the socket, usually that the address is in use.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn bind_with(address: SocketAddr, mode: Mode, settings: Settings) -> io::Result<Self> {
        let listener = listener::listen(address)?;
        let shared = Arc::new(Shared {
            address: listener.local_addr()?,
            backends: backends::Backends::new(),
            settings,
            closing: CancellationToken::new(),
        });
        let task = tokio::spawn(listener::serve(listener, mode, shared.clone()));
        Ok(Self { shared, task })
    }

    /// The address it listens on, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.shared.address
    }

    /// Replaces the set of backends. No connection is dropped: a backend that is no longer named
    /// finishes what it has in flight and gets nothing new. Once this returns, no later request
    /// reaches a backend that was left out.
    pub fn set_backends(&self, backends: impl IntoIterator<Item = BackendAddress>) {
        self.shared.backends.set(backends.into_iter().collect());
    }

    /// Takes the backend out of the set and waits until what it has in flight has ended: requests
    /// with their whole answers, upgraded connections, TCP connections. Returns how many were left
    /// when `deadline` had passed; 0 means drained. A backend that is not known is drained.
    ///
    /// Cancel-safe: the backend stays out of the set until [`set_backends`](Self::set_backends)
    /// names it again.
    pub async fn drain(&self, id: &str, deadline: Duration) -> usize {
        self.shared.backends.drain(id, deadline).await
    }

    /// The counters at this moment.
    pub fn stats(&self) -> Stats {
        self.shared.backends.stats()
    }

    /// Stops listening, closes idle connections, lets requests and connections in flight end, and
    /// breaks what is left after `deadline`. Returns how many were broken.
    ///
    /// Cancel-safe: dropping the future breaks what is left at once.
    pub async fn shutdown(mut self, deadline: Duration) -> usize {
        self.shared.closing.cancel();
        match tokio::time::timeout(deadline, &mut self.task).await {
            Ok(_) => 0,
            Err(_) => self.shared.backends.in_flight(),
        }
    }
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        // The connections are owned by this task, so they end with it.
        self.task.abort();
    }
}
