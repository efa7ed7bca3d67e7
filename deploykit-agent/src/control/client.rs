//! The client: connects with its first call, and connects again when it has lost its agent.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::ServiceName;
use deploykit_core::{Error, ErrorKind, Fence, Result};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::program;
use super::protocol::*;
use crate::error::BACKEND;
use crate::wire::{Connection, Lost, decode, decode_answer, encode, read_frame, write_frame};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(30);
/// How long an agent may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How long, and how far apart, an agent is asked that is just ending or coming up: what carries
/// the stream may say so in words of its own.
const BETWEEN: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(50);
/// How long an answer may take, beyond what the request itself waits for.
const ANSWER: Duration = Duration::from_secs(30);

const OPERATION: &str = "call the agent";

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

type Connecting = Pin<Box<dyn Future<Output = Result<Pin<Box<dyn Stream>>>> + Send>>;

/// A client of one agent; see the [module documentation](super). Clones are the same client.
///
/// Every call has a deadline and is cancel-safe in the sense of core's traits: what was dropped
/// has happened wholly or not at all. When the connection is lost, an idempotent call is made once
/// more on a new one; any other ends in `Unavailable`.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    connect: Box<dyn Fn() -> Connecting + Send + Sync>,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Client {
    /// A client that connects with its first call. `connect` makes a stream to the agent's socket,
    /// and is called again when one was lost.
    pub fn new<C, F, S>(connect: C) -> Self
    where
        C: Fn() -> F + Send + Sync + 'static,
        F: Future<Output = Result<S>> + Send + 'static,
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let connect = Box::new(move || -> Connecting {
            let connecting = connect();
            Box::pin(async move { Ok(Box::pin(connecting.await?) as Pin<Box<dyn Stream>>) })
        });
        Self(Arc::new(Shared { connect, connection: tokio::sync::Mutex::default() }))
    }

    /// Connects, where there is no connection yet.
    ///
    /// # Errors
    /// Those of connecting; `Unsupported` where the agent speaks another version; `Unavailable`
    /// where nothing answers like an agent.
    pub async fn connect(&self) -> Result<()> {
        self.connection().await.map(drop)
    }

    /// Tells of every change of a target's health or of what is served from now on, until the
    /// connection is lost. Changes that nobody waited for are told once.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn changes(&self) -> Result<Changes> {
        let mut notices = self.connection().await?.notices();
        notices.mark_unchanged();
        Ok(Changes(notices))
    }

    /// Makes an instance known, or changes how it is reached. Its probes are asked from then on;
    /// they begin anew only where they, the ports or [`Target::start`] have changed.
    ///
    /// # Errors
    /// `Invalid` where an address cannot be one, `Unsupported` for an exec probe, `Conflict` where
    /// the fence is old.
    pub async fn set_target(&self, fence: &Fence, instance: &str, target: Target) -> Result<()> {
        let (fence, instance, target) = (fence.clone(), instance.to_owned(), Box::new(target));
        self.call(Request::SetTarget { fence, instance, target }).await
    }

    /// Forgets an instance; one that is not known is no error. What it has in flight goes on.
    ///
    /// # Errors
    /// `Conflict` where the fence is old.
    pub async fn remove_target(&self, fence: &Fence, instance: &str) -> Result<()> {
        let (fence, instance) = (fence.clone(), instance.to_owned());
        self.call(Request::RemoveTarget { fence, instance }).await
    }

    /// Listens for a service: requests wait for an instance from then on. A listener that was there
    /// already goes on without losing a connection, and so does what is routed.
    ///
    /// # Errors
    /// `AlreadyExists` where an address is taken (nothing has changed then), `Conflict` where the
    /// fence is old.
    pub async fn set_endpoint(
        &self,
        fence: &Fence,
        service: &ServiceName,
        listeners: Vec<Listener>,
    ) -> Result<()> {
        let (fence, service) = (fence.clone(), service.clone());
        self.call(Request::SetEndpoint { fence, service, listeners }).await
    }

    /// Ends the listeners of a service; requests in flight have a few seconds to end. A service
    /// that is not served is no error.
    ///
    /// # Errors
    /// `Conflict` where the fence is old.
    pub async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        let (fence, service) = (fence.clone(), service.clone());
        self.call(Request::RemoveEndpoint { fence, service }).await
    }

    /// Sets the instances that may take new requests of a service: of these, the targets that are
    /// ready do. Once this returns, no other gets a new request. An instance may be routed before
    /// it is a target.
    ///
    /// # Errors
    /// `NotFound` where the service has no endpoint, `Conflict` where the fence is old.
    pub async fn route(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instances: BTreeSet<String>,
    ) -> Result<()> {
        let (fence, service) = (fence.clone(), service.clone());
        self.call(Request::Route { fence, service, instances }).await
    }

    /// Waits until an instance that is not routed has nothing in flight, for `deadline` at the
    /// longest. Returns whether it has nothing.
    ///
    /// # Errors
    /// `Conflict` where the fence is old.
    pub async fn drain(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        let (fence, service) = (fence.clone(), service.clone());
        self.call(Request::Drain { fence, service, instance: instance.to_owned(), deadline }).await
    }

    /// What the agent serves, and what its targets' probes say.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn inspect(&self) -> Result<Report> {
        self.call(Request::Inspect).await
    }

    /// Writes files into a folder that is there, each with mode 0400. Each appears whole or not at
    /// all, and replaces one of its name.
    ///
    /// # Errors
    /// `NotFound` where there is no such folder, `Invalid` for a name that is a path, `Unavailable`
    /// where no room is left, `Conflict` where the fence is old.
    pub async fn write_files(
        &self,
        fence: &Fence,
        folder: &Path,
        files: Vec<SecretFile>,
    ) -> Result<()> {
        let (fence, folder) = (fence.clone(), folder.to_owned());
        self.call(Request::WriteFiles { fence, folder, files }).await
    }

    /// The names of the files in a folder, in their order.
    ///
    /// # Errors
    /// `NotFound` where there is no such folder.
    pub async fn list_files(&self, folder: &Path) -> Result<Vec<String>> {
        self.call(Request::ListFiles { folder: folder.to_owned() }).await
    }

    /// Removes files from a folder; those that are not there are no error.
    ///
    /// # Errors
    /// `Invalid` for a name that is a path, `Conflict` where the fence is old.
    pub async fn remove_files(
        &self,
        fence: &Fence,
        folder: &Path,
        names: BTreeSet<String>,
    ) -> Result<()> {
        let (fence, folder) = (fence.clone(), folder.to_owned());
        self.call(Request::RemoveFiles { fence, folder, names }).await
    }

    /// Makes a call.
    pub(super) async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let mut again = is_idempotent(&request);
        let deadline = deadline(&request);
        loop {
            let connection = self.connection().await?;
            match connection.call(&request, deadline).await {
                Ok(answer) => {
                    return decode_answer(&answer).map_err(|e| unavailable(e.to_string()))?;
                }
                Err(Lost::Connection) => self.forget(&connection).await,
                Err(Lost::Deadline) => {
                    let message =
                        format!("no answer within {} s; it may still happen", deadline.as_secs());
                    return Err(Error::new(ErrorKind::Timeout, OPERATION, message).on(BACKEND));
                }
                Err(Lost::Unsendable(e)) => {
                    let error = Error::new(ErrorKind::Invalid, OPERATION, e.to_string());
                    return Err(error.on(BACKEND));
                }
            }
            if !std::mem::take(&mut again) {
                return Err(unavailable("it ended before it answered; run it again"));
            }
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>> {
        let mut slot = self.0.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let until = Instant::now() + BETWEEN;
        loop {
            let stream = timeout(CONNECT, (self.0.connect)()).await.map_err(|_| {
                unavailable(format!("no connection within {} s", CONNECT.as_secs()))
            })??;
            let greeted = timeout(FIRST_WORD, greet(stream)).await.map_err(|_| {
                unavailable(format!("it said nothing within {} s", FIRST_WORD.as_secs()))
            })?;
            match greeted {
                Err(e) if e.is_retryable() && Instant::now() < until => sleep(PAUSE).await,
                greeted => return Ok(Arc::clone(slot.insert(Arc::new(greeted?)))),
            }
        }
    }

    async fn forget(&self, lost: &Arc<Connection>) {
        let mut slot = self.0.connection.lock().await;
        if slot.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, lost)) {
            *slot = None;
        }
    }
}

async fn greet(stream: Pin<Box<dyn Stream>>) -> Result<Connection> {
    let (mut reader, mut writer) = tokio::io::split(stream);
    let greeting = async {
        let hello = encode(&Hello { protocol: PROTOCOL, program: program() })?;
        write_frame(&mut writer, &hello).await?;
        decode::<Welcome>(&read_frame(&mut reader).await?)
    };
    let welcome =
        greeting.await.map_err(|e| unavailable(format!("nothing answered like an agent: {e}")))?;
    if welcome.protocol == PROTOCOL {
        return Ok(Connection::new(reader, writer));
    }
    let message = format!(
        "the agent is {}, and this program speaks as {} does: use the agent of this program's version",
        welcome.program,
        program()
    );
    Err(Error::new(ErrorKind::Unsupported, "connect to the agent", message).on(BACKEND))
}

/// Waits for changes of what an agent knows; see [`Client::changes`].
#[derive(Debug)]
pub struct Changes(watch::Receiver<u64>);

impl Changes {
    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// `Unavailable` once the connection is lost.
    pub async fn changed(&mut self) -> Result<()> {
        self.0.changed().await.map_err(|_| unavailable("the connection ended"))
    }
}

fn unavailable(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Unavailable, OPERATION, message).on(BACKEND)
}

fn deadline(request: &Request) -> Duration {
    match request {
        Request::Drain { deadline, .. } => ANSWER.saturating_add(*deadline),
        _ => ANSWER,
    }
}

/// Whether making the call twice is the same as making it once.
fn is_idempotent(request: &Request) -> bool {
    !matches!(request, Request::Put { .. } | Request::Delete { .. } | Request::Acquire { .. })
}
