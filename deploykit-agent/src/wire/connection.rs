//! The asking side of a connection.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Call, Frame, answered, encode, read_frame, write_frame};

/// A connection on which many calls are made at once. Dropped, it is closed.
#[derive(Debug)]
pub struct Connection {
    calls: mpsc::UnboundedSender<Frame>,
    waiting: Arc<Waiting>,
    notices: watch::Receiver<u64>,
    next: AtomicU64,
    _tasks: JoinSet<()>,
}

/// Why a call has no answer.
#[derive(Debug)]
pub enum Lost {
    /// The connection ended: the call may have been taken or not.
    Connection,
    /// None came in time: it may still happen.
    Deadline,
    /// The call cannot be sent; nothing was.
    Unsendable(io::Error),
}

/// Who waits for which answer; nothing once the connection has ended.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Frame>>>>);

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Frame>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets a call when its future ends or is dropped.
struct Asked<'a>(&'a Waiting, u64);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0.lock().as_mut() {
            waiting.remove(&self.1);
        }
    }
}

impl Connection {
    /// Speaks over the two halves of a stream, greetings having been exchanged.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn new(
        mut reader: impl AsyncRead + Send + Unpin + 'static,
        mut writer: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Self {
        let (calls, mut outgoing) = mpsc::unbounded_channel::<Frame>();
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let (noticed, notices) = watch::channel(0);
        let mut tasks = JoinSet::new();
        let lost = Arc::clone(&waiting);
        tasks.spawn(async move {
            while let Some(call) = outgoing.recv().await {
                if write_frame(&mut writer, &call).await.is_err() {
                    lost.lock().take();
                    return;
                }
            }
        });
        let lost = Arc::clone(&waiting);
        tasks.spawn(async move {
            while let Ok(frame) = read_frame(&mut reader).await {
                match answered(&frame) {
                    None => break,
                    Some(0) => noticed.send_modify(|count| *count += 1),
                    Some(id) => {
                        let asker = lost.lock().as_mut().and_then(|waiting| waiting.remove(&id));
                        if let Some(asker) = asker {
                            let _ = asker.send(frame);
                        }
                    }
                }
            }
            // Everyone who still waits learns that the connection is gone.
            lost.lock().take();
        });
        Self { calls, waiting, notices, next: AtomicU64::new(1), _tasks: tasks }
    }

    /// Whether the other side is gone.
    pub fn is_closed(&self) -> bool {
        self.waiting.lock().is_none()
    }

    /// Counts what the other side has sent that answers no call. Ends with the connection.
    pub fn notices(&self) -> watch::Receiver<u64> {
        self.notices.clone()
    }

    /// Makes a call, and returns its answer for [`decode_answer`](super::decode_answer).
    ///
    /// Cancel-safe: a dropped call has been sent wholly or not at all, and its answer is ignored.
    ///
    /// # Errors
    /// See [`Lost`].
    pub async fn call(&self, request: &impl Serialize, deadline: Duration) -> Result<Frame, Lost> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let call = encode(&Call { id, request }).map_err(Lost::Unsendable)?;
        if call.len() > super::LONGEST {
            return Err(Lost::Unsendable(super::too_long(call.len())));
        }
        let (sender, answer) = oneshot::channel();
        self.waiting.lock().as_mut().ok_or(Lost::Connection)?.insert(id, sender);
        let _asked = Asked(&self.waiting, id);
        self.calls.send(call).map_err(|_| Lost::Connection)?;
        match timeout(deadline, answer).await {
            Ok(answer) => answer.map_err(|_| Lost::Connection),
            Err(_) => Err(Lost::Deadline),
        }
    }
}
