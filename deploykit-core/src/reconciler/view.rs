//! One look at an app, shared by all the steps that wait for it to change.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::{mpsc, watch};

use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, ServiceName};
use crate::observation::Observation;
use crate::runtime::Runtime;

/// How long a view goes without looking again when no change is told.
const IDLE: Duration = Duration::from_secs(2);

/// The newest observation of an app, and a way to ask for a newer one. However many steps ask,
/// there is one look at a time.
#[derive(Debug)]
pub(super) struct View {
    seen: watch::Receiver<Seen>,
    /// A ticket, or nothing from whoever begins to wait for a change.
    ask: mpsc::UnboundedSender<Option<u64>>,
    /// How many wait for a change: what nobody waits for is not looked at.
    waiting: Arc<AtomicUsize>,
    ticket: AtomicU64,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct Seen {
    /// The highest ticket that had been asked for when the look began.
    ticket: u64,
    /// Nothing before the first look.
    observation: Option<Arc<Observation>>,
    failed: Option<Arc<Error>>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts somebody who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::SeqCst);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl View {
    pub(super) fn open<R: Runtime>(
        runtime: Arc<R>,
        app: AppName,
        mut changes: BoxStream<'static, Result<()>>,
    ) -> Arc<Self> {
        let (publish, seen) = watch::channel(Seen::default());
        let (ask, mut asked) = mpsc::unbounded_channel();
        let waiting = Arc::new(AtomicUsize::new(0));
        let waited_for = Arc::clone(&waiting);
        let task = tokio::spawn(async move {
            // Who opens a view asks for its first look.
            let mut ticket: u64 = asked.recv().await.flatten().unwrap_or_default();
            loop {
                while let Ok(number) = asked.try_recv() {
                    ticket = ticket.max(number.unwrap_or(0));
                }
                let look = runtime.inspect(&app).await;
                let failed = look.is_err();
                publish.send_modify(|seen| {
                    seen.ticket = ticket;
                    match look {
                        Ok(observation) => seen.observation = Some(Arc::new(observation)),
                        Err(error) => seen.failed = Some(Arc::new(error)),
                    }
                });
                if failed {
                    return;
                }
                let mut changed = false;
                let told = loop {
                    let told = tokio::select! {
                        change = changes.next() => { changed = true; change }
                        Some(number) = asked.recv() => {
                            if let Some(number) = number {
                                ticket = ticket.max(number);
                                break Some(Ok(()));
                            }
                            Some(Ok(()))
                        }
                        () = tokio::time::sleep(IDLE) => { changed = true; Some(Ok(())) }
                    };
                    let goes_on = matches!(told, Some(Ok(())));
                    if !goes_on || (changed && waited_for.load(Ordering::SeqCst) > 0) {
                        break told;
                    }
                };
                let failure = match told {
                    Some(Ok(())) => continue,
                    Some(Err(error)) => error,
                    None => Error::new(ErrorKind::Unavailable, "watch the app", "the watch ended"),
                };
                publish.send_modify(|seen| seen.failed = Some(Arc::new(failure)));
                return;
            }
        });
        Arc::new(Self { seen, ask, waiting, ticket: Default::default(), task })
    }

    /// Whether it still looks.
    pub(super) fn is_open(&self) -> bool {
        self.seen.borrow().failed.is_none()
    }

    /// An observation that was begun after this call.
    pub(super) async fn refresh(&self) -> Result<Arc<Observation>> {
        let number = 1 + self.ticket.fetch_add(1, Ordering::Relaxed);
        // A view that has ended says why below.
        let _ = self.ask.send(Some(number));
        let mut seen = self.seen.clone();
        let done = seen.wait_for(|s| s.failed.is_some() || s.ticket >= number).await;
        Self::read(done.map(|s| s.clone()).unwrap_or_default())
    }

    /// Waits for an observation in which `service` is other than in `last`.
    pub(super) async fn changed(
        &self,
        last: &Arc<Observation>,
        service: &ServiceName,
    ) -> Result<Arc<Observation>> {
        let mut seen = self.seen.clone();
        let same = |o: &Arc<Observation>| {
            Arc::ptr_eq(o, last)
                || (o.of(service).eq(last.of(service))
                    && o.endpoints.get(service) == last.endpoints.get(service))
        };
        let _waiting = Waiting::new(&self.waiting);
        let _ = self.ask.send(None);
        let other = |s: &Seen| s.observation.as_ref().is_some_and(|o| !same(o));
        let done = seen.wait_for(|s| s.failed.is_some() || other(s)).await;
        Self::read(done.map(|s| s.clone()).unwrap_or_default())
    }

    fn read(seen: Seen) -> Result<Arc<Observation>> {
        if let Some(error) = seen.failed {
            return Err(Error::new(error.kind(), error.operation(), error.message()));
        }
        seen.observation
            .ok_or_else(|| Error::new(ErrorKind::Unavailable, "watch the app", "the watch ended"))
    }
}
