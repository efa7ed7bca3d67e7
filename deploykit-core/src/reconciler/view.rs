//! One look at an app, shared by all the steps that wait for it to change.

use std::sync::Arc;
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
    ask: mpsc::UnboundedSender<u64>,
    ticket: std::sync::atomic::AtomicU64,
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

impl View {
    pub(super) fn open<R: Runtime>(
        runtime: Arc<R>,
        app: AppName,
        mut changes: BoxStream<'static, Result<()>>,
    ) -> Arc<Self> {
        let (publish, seen) = watch::channel(Seen::default());
        let (ask, mut asked) = mpsc::unbounded_channel::<u64>();
        let task = tokio::spawn(async move {
            // Who opens a view asks for its first look.
            let mut ticket = asked.recv().await.unwrap_or_default();
            loop {
                while let Ok(number) = asked.try_recv() {
                    ticket = ticket.max(number);
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
                let told = tokio::select! {
                    change = changes.next() => change,
                    Some(number) = asked.recv() => { ticket = ticket.max(number); Some(Ok(())) }
                    () = tokio::time::sleep(IDLE) => Some(Ok(())),
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
        Arc::new(Self { seen, ask, ticket: Default::default(), task })
    }

    /// Whether it still looks.
    pub(super) fn is_open(&self) -> bool {
        self.seen.borrow().failed.is_none()
    }

    /// An observation that was begun after this call.
    pub(super) async fn refresh(&self) -> Result<Arc<Observation>> {
        let number = 1 + self.ticket.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        // A view that has ended says why below.
        let _ = self.ask.send(number);
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
