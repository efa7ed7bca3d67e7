//! The supervisor's socket: who may speak, and a task for each request.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use deploykit_core::{Lease, Result};
use futures_util::SinkExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::error;
use crate::folder::Folder;
use crate::protocol::{
    Call, Hello, PROTOCOL, Request, Welcome, Writer, encode_answer, framed, program, receive, send,
};
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
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
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
async fn converse(supervisor: Arc<Supervisor>, stream: UnixStream) -> Result<()> {
    let peer = stream.peer_cred().map_err(|e| crate::protocol::broken(e.to_string()))?;
    if peer.uid() != rustix::process::getuid().as_raw() {
        return Ok(());
    }
    let (mut reader, mut writer) = framed(stream);
    let hello = tokio::time::timeout(FIRST_WORD, receive::<Hello, _>(&mut reader));
    let hello = hello.await.map_err(|_| crate::protocol::broken("no first word".into()))??;
    let welcome = Welcome { protocol: PROTOCOL, program: program(), pid: std::process::id() };
    send(&mut writer, &welcome).await?;
    if hello.protocol != PROTOCOL {
        return Ok(());
    }
    let (answers, waiting) = mpsc::channel(BACKLOG);
    let write = tokio::spawn(write_answers(writer, waiting));
    let mut leases: Vec<Lease> = Vec::new();
    loop {
        let Ok(Call { id, request }) = receive(&mut reader).await else { break };
        let (supervisor, answers) = (Arc::clone(&supervisor), answers.clone());
        match request {
            Request::Watch { app } => {
                let mut changes = supervisor.subscribe(&app);
                tokio::spawn(async move {
                    loop {
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

async fn write_answers(mut writer: Writer, mut waiting: mpsc::Receiver<Bytes>) {
    while let Some(answer) = waiting.recv().await {
        if writer.send(answer).await.is_err() {
            return;
        }
    }
}
