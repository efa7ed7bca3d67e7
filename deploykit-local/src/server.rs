//! The supervisor's socket: who may speak, and a task for each request.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deploykit_agent::wire::{
    Call, decode, encode, encode_answer, read_frame, write_frame, write_frames,
};
use deploykit_core::{Lease, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::error;
use crate::folder::Folder;
use crate::protocol::{Hello, PROTOCOL, Request, Welcome, program};
use crate::supervisor::Supervisor;

/// How long a client may take to say its first word.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// How many answers may wait for a slow client.
const BACKLOG: usize = 256;

/// Serves clients at the folder's socket.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    clients: Arc<AtomicUsize>,
}

impl Server {
    /// Listens. Who calls this holds the folder's lock, so a socket that is there is stale.
    pub(crate) fn bind(folder: &Folder) -> Result<Self> {
        let path = folder.socket();
        let failed = |e| error::io("listen on the supervisor's socket", &path, e);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = folder.with_socket(|path| UnixListener::bind(path)).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, clients: Arc::default() })
    }

    /// How many clients are connected.
    pub(crate) fn clients(&self) -> usize {
        self.clients.load(Ordering::Relaxed)
    }

    /// Serves until `end`. Requests that have begun run to their end.
    pub(crate) async fn serve(&self, supervisor: &Arc<Supervisor>, end: &CancellationToken) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = end.cancelled() => return,
            };
            match accepted {
                Ok((stream, _)) => {
                    let (supervisor, clients, end) =
                        (Arc::clone(supervisor), Arc::clone(&self.clients), end.clone());
                    clients.fetch_add(1, Ordering::Relaxed);
                    tokio::spawn(async move {
                        // The connection ends with the client; there is nobody to tell.
                        let _ = end.run_until_cancelled(converse(supervisor, stream)).await;
                        clients.fetch_sub(1, Ordering::Relaxed);
                    });
                }
                // Too many open files: others may close theirs.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

/// Speaks with one client until it leaves.
async fn converse(supervisor: Arc<Supervisor>, stream: UnixStream) -> io::Result<()> {
    let peer = stream.peer_cred()?;
    if peer.uid() != rustix::process::getuid().as_raw() {
        return Ok(());
    }
    let (mut reader, mut writer) = stream.into_split();
    let hello = tokio::time::timeout(FIRST_WORD, read_frame(&mut reader)).await??;
    let hello: Hello = decode(&hello)?;
    let welcome = Welcome { protocol: PROTOCOL, program: program(), pid: std::process::id() };
    write_frame(&mut writer, &encode(&welcome)?).await?;
    if hello.protocol != PROTOCOL {
        return Ok(());
    }
    let (answers, waiting) = mpsc::channel(BACKLOG);
    let write = tokio::spawn(write_frames(writer, waiting));
    let mut leases: Vec<Lease> = Vec::new();
    while let Ok(call) = read_frame(&mut reader).await {
        let Ok(Call { id, request }) = decode(&call) else { break };
        let (supervisor, answers) = (Arc::clone(&supervisor), answers.clone());
        match request {
            Request::Watch { app } => {
                let mut changes = supervisor.subscribe(&app);
                // Answered once; what follows answers no call.
                tokio::spawn(async move {
                    for id in std::iter::once(id).chain(std::iter::repeat(0)) {
                        if answers.send(encode_answer(id, &Ok(()))).await.is_err() {
                            return;
                        }
                        tokio::select! {
                            changed = changes.changed() => if changed.is_err() { return },
                            () = answers.closed() => return,
                        }
                    }
                });
            }
            Request::Acquire { app, holder, ttl } => {
                let acquired = supervisor.acquire(&app, &holder, ttl);
                leases.extend(acquired.as_ref().ok().cloned());
                let _ = answers.send(encode_answer(id, &acquired)).await;
            }
            request => {
                tokio::spawn(async move {
                    let answer = supervisor.answer(id, request).await;
                    let _ = answers.send(answer).await;
                });
            }
        }
    }
    // Ends the watches of this client.
    write.abort();
    // A holder that is gone keeps nobody waiting: its lease ends now, unless it comes back on
    // another connection and renews it before somebody else takes it. One that is held by somebody
    // else already, or was given back, is none of this client's.
    for lease in leases {
        let _ = supervisor.renew(&lease, Duration::ZERO);
    }
    Ok(())
}
