//! The agent's socket: one agent for each state folder, and a task for each request.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Result};
use rustix::fs::{FlockOperation, flock};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

use super::Agent;
use crate::control::{Hello, PROTOCOL, Request, Welcome, program, socket};
use crate::error::{self, BACKEND};
use crate::wire::{Call, decode, encode, encode_answer, read_frame, write_frame, write_frames};

/// How long a client may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// How many answers may wait for a slow client.
const BACKLOG: usize = 256;
/// How long an agent that is ending may take to leave its folder.
const LOCK: Duration = Duration::from_secs(10);

/// The right to be the one agent on a state folder, and its socket.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
    _lock: File,
}

impl Server {
    /// Takes a state folder, which it makes where it is missing, and listens.
    ///
    /// Cancel-safe: nothing is left but an empty folder with a file to lock.
    ///
    /// # Errors
    /// `Conflict` where another agent has it and does not end within ten seconds; others of the
    /// file system.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub async fn bind(folder: &Path) -> Result<Self> {
        let failed = |e| error::io("open the agent's state", folder, e);
        fs::create_dir_all(folder).map_err(failed)?;
        let mut options = File::options();
        let lock = options.write(true).create(true).truncate(false).open(folder.join("lock"));
        let lock = lock.map_err(failed)?;
        let deadline = Instant::now() + LOCK;
        while let Err(e) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if e != rustix::io::Errno::WOULDBLOCK {
                return Err(failed(e.into()));
            }
            if Instant::now() >= deadline {
                let message = "another agent has this folder; end it, or choose another folder";
                let error = Error::new(ErrorKind::Conflict, "open the agent's state", message);
                return Err(error.on(BACKEND).with("path", folder.display()));
            }
            sleep(Duration::from_millis(50)).await;
        }
        let path = socket(folder);
        let failed = |e| error::io("listen on the agent's socket", &path, e);
        // Who has the lock knows that it is stale.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = UnixListener::bind(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, _lock: lock })
    }

    /// Serves clients until dropped. Requests that have begun run to their end.
    pub async fn serve(&self, agent: &Arc<Agent>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let agent = Arc::clone(agent);
                    tokio::spawn(async move { agent.converse(stream).await });
                }
                // Too many open files: others may close theirs.
                Err(_) => sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Agent {
    /// Speaks with one client until it leaves, over any stream.
    ///
    /// Dropping the future ends the connection; requests that have begun run to their end.
    pub async fn converse(self: Arc<Self>, stream: impl AsyncRead + AsyncWrite + Send + 'static) {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let client = NEXT.fetch_add(1, Ordering::Relaxed);
        let (mut reader, mut writer) = tokio::io::split(Box::pin(stream));
        // The connection ends with the client; there is nobody to tell.
        let Ok(true) = greet(&mut reader, &mut writer).await else { return };
        let (answers, waiting) = mpsc::channel(BACKLOG);
        let write = AbortOnDrop(tokio::spawn(write_frames(writer, waiting)));
        let mut changes = self.changes.subscribe();
        let notices = answers.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    changed = changes.changed() => if changed.is_err() { return },
                    () = notices.closed() => return,
                }
                if notices.send(encode_answer(0, &Ok(()))).await.is_err() {
                    return;
                }
            }
        });
        while let Ok(frame) = read_frame(&mut reader).await {
            let Ok(Call { id, request }) = decode::<Call<Request>>(&frame) else { break };
            let (agent, answers) = (Arc::clone(&self), answers.clone());
            tokio::spawn(async move {
                let answer = agent.answer(client, id, request).await;
                let _ = answers.send(answer).await;
            });
        }
        drop(write);
        self.state().keeper.gone(client);
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Exchanges the first words; says whether both speak the same version.
async fn greet(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
) -> io::Result<bool> {
    let hello = timeout(FIRST_WORD, read_frame(reader)).await??;
    let hello: Hello = decode(&hello)?;
    let welcome = encode(&Welcome { protocol: PROTOCOL, program: program() })?;
    write_frame(writer, &welcome).await?;
    Ok(hello.protocol == PROTOCOL)
}
