//! The client's end of the supervisor's socket: connects, starts a supervisor where there is
//! none, and connects again when it has lost one.

use std::collections::HashMap;
use std::os::unix::net::UnixStream as StdStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deploykit_agent::wire::{
    Connection, Lost, decode, decode_answer, encode, read_frame, write_frame,
};
use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, Observation, Result};
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::changes::{Changes, Known};
use crate::error::{self, BACKEND};
use crate::folder::Folder;
use crate::protocol::{Hello, PROTOCOL, Request, Welcome, broken, program};
use crate::reexec;

/// How long connecting may take, a supervisor's start included.
const CONNECT: Duration = Duration::from_secs(90);
/// How long a supervisor may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(10);
/// How long an answer may take, beyond what the request itself waits for.
const ANSWER: Duration = Duration::from_secs(60);
/// How long the end of an instance may take: its grace period is known to the supervisor alone.
const STOP: Duration = Duration::from_secs(3600);

/// Who starts a supervisor where there is none.
#[derive(Clone, Debug)]
pub(crate) enum Starter {
    /// The client, by executing its program again.
    Client { keys: PathBuf },
    /// Nobody: it lives in this program, and is gone when that says so.
    Program,
}

/// A client of the supervisor of one folder.
#[derive(Debug)]
pub(crate) struct Client {
    folder: Folder,
    starter: Starter,
    connection: tokio::sync::Mutex<Option<Arc<Connection>>>,
    /// The newest look at each app.
    seen: Mutex<HashMap<AppName, Known>>,
}

impl Client {
    /// A client that connects with its first call.
    pub(crate) fn new(folder: Folder, starter: Starter) -> Self {
        Self { folder, starter, connection: tokio::sync::Mutex::default(), seen: Mutex::default() }
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Calls the supervisor. A call that was cut off is made again where that is safe. Cancel-safe
    /// in the sense of core's traits: what was dropped has happened wholly or not at all.
    pub(crate) async fn call<T: DeserializeOwned>(&self, request: Request) -> Result<T> {
        let mut again = is_idempotent(&request);
        loop {
            let connection = self.connection().await?;
            match ask(&connection, &request).await? {
                Some(answer) => return answer,
                None => self.forget(&connection).await,
            }
            if !std::mem::take(&mut again) {
                return Err(broken("the supervisor ended before it answered; run it again"));
            }
        }
    }

    /// Everything that there is of an app.
    pub(crate) async fn inspect(&self, app: &AppName) -> Result<Observation> {
        let seen = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut since = seen().get(app).map(Known::version);
        loop {
            let changes: Changes = self.call(Request::Inspect { app: app.clone(), since }).await?;
            let mut seen = seen();
            let mut newest = seen.remove(app);
            let now = Known::take(&mut newest, changes);
            seen.extend(newest.map(|newest| (app.clone(), newest)));
            match now {
                Some(now) => return Ok(now),
                None => since = None,
            }
        }
    }

    /// Changes of an app from the moment on when this returns, until the connection ends.
    pub(crate) async fn watch(&self, app: &AppName) -> Result<WatchStream> {
        let connection = self.connect().await?;
        let changes = connection.notices();
        match ask::<()>(&connection, &Request::Watch { app: app.clone() }).await? {
            Some(watched) => watched.map(|()| WatchStream { changes, _connection: connection }),
            None => Err(broken("the supervisor ended before it answered; run it again")),
        }
    }

    async fn connection(&self) -> Result<Arc<Connection>> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.is_closed()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.connect().await?);
        *slot = Some(Arc::clone(&connection));
        Ok(connection)
    }

    async fn forget(&self, lost: &Arc<Connection>) {
        let mut slot = self.connection.lock().await;
        if slot.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, lost)) {
            *slot = None;
        }
    }

    /// A connection with a supervisor that speaks this protocol.
    async fn connect(&self) -> Result<Connection> {
        let deadline = Instant::now() + CONNECT;
        let mut pause = Duration::from_millis(2);
        loop {
            if let Some(connection) = self.knock().await? {
                return Ok(connection);
            }
            let Starter::Client { keys } = &self.starter else {
                return Err(broken("the supervisor within this program has ended"));
            };
            // The folder goes with a supervisor that had nothing left to host.
            Folder::open(self.folder.path())?;
            if !reexec::start(&self.folder, keys).await? {
                // Another one is coming up, or going.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_millis(100));
            }
            if Instant::now() >= deadline {
                let message = "another process holds the folder's lock and does not answer; end it and run this again";
                let error = Error::new(ErrorKind::Timeout, "reach the supervisor", message);
                return Err(error.on(BACKEND).with("path", self.folder.path().display()));
            }
        }
    }

    /// Tries once; nothing where no supervisor answers.
    async fn knock(&self) -> Result<Option<Connection>> {
        let failed = |e| error::io("reach the supervisor", &self.folder.socket(), e);
        let stream = match self.folder.with_socket(|path| StdStream::connect(path)) {
            Ok(stream) => stream,
            Err(e)
                if matches!(
                    e.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
                ) =>
            {
                return Ok(None);
            }
            Err(e) => return Err(failed(e)),
        };
        stream.set_nonblocking(true).map_err(failed)?;
        let stream = UnixStream::from_std(stream).map_err(failed)?;
        let (peer, me) =
            (stream.peer_cred().map_err(failed)?.uid(), rustix::process::getuid().as_raw());
        if peer != me {
            let message =
                format!("the folder's socket is served by user {peer}, and you are user {me}");
            let error = Error::new(ErrorKind::Unauthorized, "reach the supervisor", message);
            return Err(error.on(BACKEND).with("path", self.folder.path().display()));
        }
        let (mut reader, mut writer) = stream.into_split();
        let greeting = async {
            let hello = encode(&Hello { protocol: PROTOCOL, program: program() })?;
            write_frame(&mut writer, &hello).await?;
            decode::<Welcome>(&read_frame(&mut reader).await?)
        };
        match timeout(FIRST_WORD, greeting).await {
            Ok(Ok(welcome)) if welcome.protocol == PROTOCOL => {
                Ok(Some(Connection::new(reader, writer)))
            }
            Ok(Ok(welcome)) => Err(self.foreign(&welcome)),
            // It was just ending.
            Ok(Err(_)) => Ok(None),
            Err(_) => {
                let message = "the supervisor does not answer; end it and run this again (its instances go on)";
                Err(Error::new(ErrorKind::Timeout, "reach the supervisor", message).on(BACKEND))
            }
        }
    }

    fn foreign(&self, welcome: &Welcome) -> Error {
        let message = format!(
            "the folder's supervisor is {} with protocol {}, and this program is {} with protocol {PROTOCOL}: \
             use that version, or end it with `kill {}` and run this again (its instances go on and are adopted)",
            welcome.program,
            welcome.protocol,
            program(),
            welcome.pid
        );
        let error = Error::new(ErrorKind::Unsupported, "reach the supervisor", message);
        error.on(BACKEND).with("path", self.folder.path().display())
    }
}

/// Items of [`Client::watch`].
pub(crate) struct WatchStream {
    changes: watch::Receiver<u64>,
    _connection: Connection,
}

impl WatchStream {
    /// Waits for the next change. Cancel-safe.
    pub(crate) async fn changed(&mut self) -> Result<()> {
        self.changes.changed().await.map_err(|_| broken("the connection ended"))
    }
}

/// Nothing where the connection was lost before the answer came.
async fn ask<T: DeserializeOwned>(
    connection: &Connection,
    request: &Request,
) -> Result<Option<Result<T>>> {
    let deadline = deadline(request);
    match connection.call(request, deadline).await {
        Ok(answer) => decode_answer(&answer).map(Some).map_err(broken),
        Err(Lost::Connection) => Ok(None),
        Err(Lost::Deadline) => {
            let message = format!("no answer within {} s; it may still happen", deadline.as_secs());
            Err(Error::new(ErrorKind::Timeout, "call the supervisor", message).on(BACKEND))
        }
        Err(Lost::Unsendable(e)) => {
            let error = Error::new(ErrorKind::Invalid, "call the supervisor", e.to_string());
            Err(error.on(BACKEND))
        }
    }
}

fn deadline(request: &Request) -> Duration {
    match request {
        Request::Stop { .. } => STOP,
        Request::Drain { deadline, .. } => ANSWER.saturating_add(*deadline),
        _ => ANSWER,
    }
}

/// Whether making the call twice is the same as making it once.
fn is_idempotent(request: &Request) -> bool {
    !matches!(
        request,
        Request::Put { .. }
            | Request::Delete { .. }
            | Request::Acquire { .. }
            | Request::PutSecret { only_first: false, .. }
    )
}
