//! From backend to backend until one takes the request.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Shared;
use super::backends::{Backend, InFlight, Reuse};

/// The pause once every backend has been tried in vain; doubles up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(250);

/// No backend took the request while it was held.
#[derive(Debug)]
pub(crate) struct Unavailable(pub(crate) Option<io::Error>);

/// The search of one request for a backend: knows which ones were tried.
pub(crate) struct Attempts<'a> {
    shared: &'a Shared,
    tried: Vec<Arc<Backend>>,
    /// Set by the first failure, so that a request that is served at once reads no clock.
    until: Option<Instant>,
    pause: Duration,
    last: Option<io::Error>,
}

impl<'a> Attempts<'a> {
    pub(crate) fn new(shared: &'a Shared) -> Self {
        Self { shared, tried: Vec::new(), until: None, pause: FIRST_PAUSE, last: None }
    }

    /// The next backend to try. Waits for one to appear, or for those that failed to recover, as
    /// long as [`Settings::hold`](super::Settings::hold) allows.
    pub(crate) async fn next(&mut self) -> Result<InFlight, Unavailable> {
        loop {
            let changed = self.shared.backends.changed();
            tokio::pin!(changed);
            if let Some(picked) = self.shared.backends.pick(&self.tried) {
                return Ok(picked);
            }
            // Registered before the second look, so that no change falls in between.
            changed.as_mut().enable();
            if let Some(picked) = self.shared.backends.pick(&self.tried) {
                return Ok(picked);
            }
            let until = self.until();
            if Instant::now() >= until {
                return Err(Unavailable(self.last.take()));
            }
            let wake =
                if self.tried.is_empty() { until } else { until.min(Instant::now() + self.pause) };
            if tokio::time::timeout_at(wake, changed).await.is_err() {
                self.pause = (self.pause * 2).min(LAST_PAUSE);
            }
            self.tried.clear();
        }
    }

    /// A connection to the next backend: an idle one as far as `reuse` allows, else a new one.
    /// The flag says that it was idle, hence that its end means nothing about the backend.
    pub(crate) async fn connect(
        &mut self,
        reuse: Reuse,
    ) -> Result<(InFlight, TcpStream, bool), Unavailable> {
        loop {
            let backend = self.next().await?;
            if let Some(stream) = backend.take_idle(reuse) {
                return Ok((backend, stream, true));
            }
            match connect(backend.addr(), self.shared.settings.connect_timeout).await {
                Ok(stream) => return Ok((backend, stream, false)),
                Err(error) => self.failed(&backend, false, error),
            }
        }
    }

    /// `backend` did not take the request. That the connection was a reused one may be the whole
    /// reason; else the backend is left out, and not tried again until all others were.
    pub(crate) fn failed(&mut self, backend: &InFlight, reused: bool, error: io::Error) {
        tracing::debug!(backend = %backend.addr(), reused, %error, "a backend took no request");
        self.until();
        self.shared.backends.count_retry();
        backend.clear_idle();
        if !reused {
            backend.failed(self.shared.settings.ejection);
            self.tried.push(backend.backend().clone());
            self.last = Some(error);
        }
    }

    fn until(&mut self) -> Instant {
        *self.until.get_or_insert_with(|| Instant::now() + self.shared.settings.hold)
    }
}

pub(crate) async fn connect(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = timeout(limit, TcpStream::connect(addr))
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer to the connect"))??;
    stream.set_nodelay(true)?;
    Ok(stream)
}
