//! The set of backends: who gets the next request, who is left out, who still has work.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::http2::Http2Client;

/// An idle connection is not used again after this long: common servers close theirs after 5 s,
/// and a request must not meet that close.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// As the limit above, for requests that must not be sent twice.
const FRESH_LIMIT: Duration = Duration::from_millis(500);
/// Idle connections kept for each backend.
const IDLE_COUNT: usize = 256;

/// One instance of the service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendAddress {
    /// The id of the instance.
    pub id: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

impl BackendAddress {
    /// The instance `id` at `addr`.
    pub fn new(id: impl Into<String>, addr: SocketAddr) -> Self {
        Self { id: id.into(), addr }
    }
}

/// The counters of a proxy since it was bound.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stats {
    /// Requests (TCP: connections) taken from clients.
    pub requests: u64,
    /// Those that ended in an error of the proxy (502, 503, 504), or whose answer broke off.
    pub failures: u64,
    /// How often a request went to a further backend after the first did not serve it.
    pub retries: u64,
    /// Each backend in the set, and those that left it with work in flight.
    pub backends: Vec<BackendStats>,
}

/// The counters of one backend.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BackendStats {
    /// The id of the instance.
    pub id: String,
    /// Where it listens.
    pub addr: SocketAddr,
    /// Requests or connections given to it so far.
    pub requests: u64,
    /// Requests, upgraded connections and TCP connections in flight.
    pub in_flight: usize,
    /// Whether it is left out at the moment since it refused or reset connections.
    pub ejected: bool,
    /// Whether it left the set and only finishes what is in flight.
    pub leaving: bool,
}

#[derive(Debug)]
pub(crate) struct Backend {
    id: String,
    addr: SocketAddr,
    in_flight: AtomicUsize,
    requests: AtomicU64,
    leaving: AtomicBool,
    /// Failures in a row; read without a lock on the way of every request.
    failures: AtomicU32,
    ejected_until: Mutex<Option<Instant>>,
    idle: Mutex<Vec<(TcpStream, Instant)>>,
    pub(crate) http2: Http2Client,
    idled: Notify,
}

impl Backend {
    fn new(address: BackendAddress) -> Self {
        Self {
            id: address.id,
            addr: address.addr,
            in_flight: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            leaving: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            ejected_until: Mutex::new(None),
            idle: Mutex::new(Vec::new()),
            http2: Http2Client::default(),
            idled: Notify::new(),
        }
    }

    fn ejected_until(&self) -> Option<Instant> {
        if self.failures.load(Ordering::Relaxed) == 0 {
            return None;
        }
        lock(&self.ejected_until).filter(|until| *until > Instant::now())
    }

    fn leave(&self) {
        self.leaving.store(true, Ordering::Release);
        lock(&self.idle).clear();
    }
}

/// Which idle connections may carry a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reuse {
    /// None: the connection as a whole belongs to one client.
    Never,
    /// One that was used just now and that the kernel knows to be open: for what is sent once.
    Fresh,
    /// Any: should the backend close it meanwhile, the request is sent again.
    Any,
}

/// A backend that was picked; counts as one request in flight there until dropped.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Backend>);

impl InFlight {
    fn new(backend: &Arc<Backend>) -> Self {
        backend.in_flight.fetch_add(1, Ordering::AcqRel);
        backend.requests.fetch_add(1, Ordering::Relaxed);
        Self(backend.clone())
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.0.addr
    }

    pub(crate) fn backend(&self) -> &Arc<Backend> {
        &self.0
    }

    /// A pooled connection that the backend has kept open.
    pub(crate) fn take_idle(&self, reuse: Reuse) -> Option<TcpStream> {
        let limit = match reuse {
            Reuse::Never => return None,
            Reuse::Fresh => FRESH_LIMIT,
            Reuse::Any => IDLE_LIMIT,
        };
        let mut idle = lock(&self.0.idle);
        // The newest is on top, so that when it is too old all of them are.
        while idle.last().is_some_and(|(_, since)| since.elapsed() < limit) {
            let (stream, _) = idle.pop()?;
            if is_open(&stream) && (reuse == Reuse::Any || is_silent(&stream)) {
                return Some(stream);
            }
        }
        None
    }

    /// Keeps a connection on which a whole answer was read.
    pub(crate) fn put_idle(&self, stream: TcpStream) {
        let mut idle = lock(&self.0.idle);
        if !self.0.leaving.load(Ordering::Acquire) && idle.len() < IDLE_COUNT {
            idle.push((stream, Instant::now()));
        }
    }

    /// One idle connection was found closed by the backend: the others likely are.
    pub(crate) fn clear_idle(&self) {
        lock(&self.0.idle).clear();
    }

    /// The backend has answered.
    pub(crate) fn succeeded(&self) {
        if self.0.failures.load(Ordering::Relaxed) != 0 {
            self.0.failures.store(0, Ordering::Relaxed);
            *lock(&self.0.ejected_until) = None;
        }
    }

    /// The backend refused a connection, or ended a fresh one before a byte of answer.
    pub(crate) fn failed(&self, ejection: Duration) {
        let failures = self.0.failures.fetch_add(1, Ordering::Relaxed);
        let back_off = ejection * 2_u32.saturating_pow(failures).min(100);
        *lock(&self.0.ejected_until) = Some(Instant::now() + back_off);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let last = self.0.in_flight.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && self.0.leaving.load(Ordering::Acquire) {
            self.0.idled.notify_waiters();
        }
    }
}

/// Whether nothing has arrived on an idle connection: its end, or an answer nobody asked for, both
/// make it unusable. No system call is made while the reactor has seen no event.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// Asks the kernel itself: the reactor may not have seen yet that the backend has closed.
fn is_silent(stream: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    matches!(rustix::net::recv(stream, &mut [0_u8], flags), Err(Errno::AGAIN))
}

#[derive(Debug)]
struct Set {
    active: Vec<Arc<Backend>>,
    leaving: Vec<Arc<Backend>>,
    next: usize,
}

#[derive(Debug)]
pub(crate) struct Backends {
    set: Mutex<Set>,
    changed: Notify,
    requests: AtomicU64,
    failures: AtomicU64,
    retries: AtomicU64,
}

impl Backends {
    pub(crate) fn new() -> Self {
        Self {
            set: Mutex::new(Set { active: Vec::new(), leaving: Vec::new(), next: 0 }),
            changed: Notify::new(),
            requests: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            retries: AtomicU64::new(0),
        }
    }

    pub(crate) fn set(&self, addresses: Vec<BackendAddress>) {
        let mut set = lock(&self.set);
        let old = std::mem::take(&mut set.active);
        for address in addresses {
            let same = |b: &&Arc<Backend>| b.id == address.id && b.addr == address.addr;
            if set.active.iter().any(|b| same(&b)) {
                continue;
            }
            let known = old.iter().chain(&set.leaving).find(same).cloned();
            let backend = known.unwrap_or_else(|| Arc::new(Backend::new(address)));
            backend.leaving.store(false, Ordering::Release);
            set.active.push(backend);
        }
        for backend in old {
            set.retire(backend);
        }
        set.forget_drained();
        drop(set);
        self.changed.notify_waiters();
    }

    /// The backend with the fewest requests in flight, in rotation among equals. Those in `avoid`
    /// are left out, and ejected ones too unless all others are.
    pub(crate) fn pick(&self, avoid: &[Arc<Backend>]) -> Option<InFlight> {
        let mut set = lock(&self.set);
        let count = set.active.len();
        let mut best: Option<(Option<Instant>, usize, usize)> = None;
        for offset in 0..count {
            let index = (set.next + offset) % count;
            let backend = &set.active[index];
            if avoid.iter().any(|other| Arc::ptr_eq(other, backend)) {
                continue;
            }
            // `None` sorts first: a backend that is not ejected wins, else the one due first.
            let rank = (backend.ejected_until(), backend.in_flight.load(Ordering::Acquire), index);
            if best.is_none_or(|(ejected, load, _)| (rank.0, rank.1) < (ejected, load)) {
                best = Some(rank);
            }
        }
        let (_, _, index) = best?;
        set.next = index + 1;
        // Counted under the lock, so that a drain that begins later sees it.
        Some(InFlight::new(&set.active[index]))
    }

    /// Resolves when the set changes after this call was first polled.
    pub(crate) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    pub(crate) async fn drain(&self, id: &str, deadline: Duration) -> usize {
        let until = Instant::now() + deadline;
        let leaving: Vec<_> = {
            let mut set = lock(&self.set);
            let (out, stay) = set.active.drain(..).partition(|backend| backend.id == id);
            set.active = stay;
            for backend in out {
                set.retire(backend);
            }
            set.leaving.iter().filter(|backend| backend.id == id).cloned().collect()
        };
        for backend in &leaving {
            loop {
                let idled = backend.idled.notified();
                tokio::pin!(idled);
                idled.as_mut().enable();
                if backend.in_flight.load(Ordering::Acquire) == 0
                    || tokio::time::timeout_at(until, idled).await.is_err()
                {
                    break;
                }
            }
        }
        lock(&self.set).forget_drained();
        leaving.iter().map(|backend| backend.in_flight.load(Ordering::Acquire)).sum()
    }

    pub(crate) fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.stats().backends.iter().map(|backend| backend.in_flight).sum()
    }

    /// Closes idle connections that have not been used for long, or that the backend has closed.
    pub(crate) fn sweep_idle(&self) {
        for backend in &lock(&self.set).active {
            lock(&backend.idle)
                .retain(|(stream, since)| since.elapsed() < IDLE_LIMIT && is_open(stream));
        }
    }

    pub(crate) fn stats(&self) -> Stats {
        let mut set = lock(&self.set);
        set.forget_drained();
        let backends = set.active.iter().chain(&set.leaving).map(|backend| BackendStats {
            id: backend.id.clone(),
            addr: backend.addr,
            requests: backend.requests.load(Ordering::Relaxed),
            in_flight: backend.in_flight.load(Ordering::Acquire),
            ejected: backend.ejected_until().is_some(),
            leaving: backend.leaving.load(Ordering::Acquire),
        });
        Stats {
            requests: self.requests.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            retries: self.retries.load(Ordering::Relaxed),
            backends: backends.collect(),
        }
    }
}

impl Set {
    fn retire(&mut self, backend: Arc<Backend>) {
        if !self.active.iter().any(|other| Arc::ptr_eq(other, &backend)) {
            backend.leave();
            self.leaving.push(backend);
        }
    }

    fn forget_drained(&mut self) {
        let active = &self.active;
        self.leaving.retain(|backend| {
            backend.in_flight.load(Ordering::Acquire) > 0
                && !active.iter().any(|other| Arc::ptr_eq(other, backend))
        });
    }
}

/// No code that holds these locks can panic half-way, so a poisoned one is still whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
