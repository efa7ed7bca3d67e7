//! The supervisor within the program, for [`Lifetime::Program`](crate::Lifetime::Program): the
//! same one, behind the same socket, on a thread of its own.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::error::BACKEND;
use crate::folder::{Folder, Lock};
use crate::server::Server;
use crate::supervisor::Supervisor;

/// A running supervisor. Dropping it ends its instances, and waits for that.
#[derive(Debug)]
pub(crate) struct Program {
    end: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Program {
    /// Starts it, and returns when it serves.
    pub(crate) async fn start(folder: Folder, keys: PathBuf) -> Result<Self> {
        let failed = |message: String| {
            Error::new(ErrorKind::Failed, "start the supervisor", message).on(BACKEND)
        };
        let end = CancellationToken::new();
        let (sender, up) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        let until = end.clone();
        let thread = std::thread::Builder::new()
            .name("deploykit-local".into())
            .spawn(move || runtime.block_on(serve(folder, keys, until, sender)))
            .map_err(|e| failed(e.to_string()))?;
        let program = Self { end, thread: Some(thread) };
        up.await.map_err(|_| failed("it ended at once".into()))??;
        Ok(program)
    }

    /// Ends its instances as they ask to be ended.
    pub(crate) async fn close(mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.end.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    folder: Folder,
    keys: PathBuf,
    end: CancellationToken,
    up: oneshot::Sender<Result<()>>,
) {
    let begin = async {
        let Some(lock) = lock(&folder).await? else {
            let message = "another supervisor serves the folder; end it, or choose another folder";
            let error = Error::new(ErrorKind::Conflict, "start the supervisor", message);
            return Err(error.on(BACKEND).with("path", folder.path().display()));
        };
        let supervisor = Supervisor::open(folder.clone(), lock, keys, false).await?;
        Ok((Server::bind(&folder)?, supervisor))
    };
    let (server, supervisor) = match begin.await {
        Ok(both) => both,
        Err(e) => {
            let _ = up.send(Err(e));
            return;
        }
    };
    let _ = up.send(Ok(()));
    server.serve(&supervisor, &end).await;
    let _ = std::fs::remove_file(folder.socket());
    supervisor.close().await;
    // An error leaves files behind, which the next supervisor takes up.
    let _ = supervisor.clear_if_empty();
}

/// A child that this program, or an earlier supervisor, has just forked holds the lock until its
/// exec: only who has it for longer is another supervisor.
async fn lock(folder: &Folder) -> Result<Option<Lock>> {
    for _ in 0..50 {
        if let Some(lock) = folder.lock()? {
            return Ok(Some(lock));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    folder.lock()
}
