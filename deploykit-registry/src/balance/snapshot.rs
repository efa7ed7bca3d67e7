//! The instances at one time, and what is known of each.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use deploykit_core::{Error, ErrorKind, Registered};

use super::hash::{self, hash};
use super::pick::Policy;

/// An instance is left out after so many failures in a row,
const FAILURES: u32 = 5;
/// for so long at first, and for so much longer each time,
const EJECTION: Duration = Duration::from_secs(10);
/// at most.
const LONGEST: Duration = Duration::from_secs(300);

/// In what time a peak of the times to answer is forgotten to a third.
const DECAY: f64 = 10e9;

/// The instances of a service at one time. Clones are the same; picks from it take no lock.
#[derive(Clone)]
pub struct Snapshot(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) policy: Policy,
    pub(super) states: Vec<Arc<State>>,
    pub(super) turn: AtomicUsize,
    /// Where each one's share ends, for [`Policy::Weighted`].
    pub(super) weights: Vec<f64>,
    table: OnceLock<Vec<u32>>,
}

impl Shared {
    pub(super) fn table(&self) -> &[u32] {
        self.table.get_or_init(|| hash::table(&self.states))
    }
}

impl Snapshot {
    /// Of these instances, with nothing known of them.
    pub fn new(instances: Vec<Registered>, policy: Policy) -> Self {
        Self::of(instances.into_iter().map(State::new).map(Arc::new).collect(), policy)
    }

    /// Of other instances: what is known of those that stay is kept.
    pub fn with(&self, instances: Vec<Registered>, policy: Policy) -> Self {
        let known: BTreeMap<_, _> = self.0.states.iter().map(|s| (&s.instance.id, s)).collect();
        let state = |instance: Registered| match known.get(&instance.id) {
            Some(state) if state.instance == instance => Arc::clone(state),
            _ => Arc::new(State::new(instance)),
        };
        let next = Self::of(instances.into_iter().map(state).collect(), policy);
        next.0.turn.store(self.0.turn.load(Relaxed), Relaxed);
        next
    }

    fn of(states: Vec<Arc<State>>, policy: Policy) -> Self {
        let mut end = 0.0;
        let share = |state: &Arc<State>| {
            end += state.weight;
            end
        };
        let weights = states.iter().map(share).collect();
        let (turn, table) = (AtomicUsize::default(), OnceLock::new());
        let shared = Shared { policy, states, turn, weights, table };
        if policy == Policy::Maglev && !shared.states.is_empty() {
            shared.table();
        }
        Self(Arc::new(shared))
    }

    /// The instances, in the order of their ids.
    pub fn instances(&self) -> impl Iterator<Item = &Registered> {
        self.0.states.iter().map(|state| &state.instance)
    }
}

pub(super) fn none() -> Error {
    let message = "no instance is registered; register one, or wait until one is";
    Error::new(ErrorKind::Unavailable, "pick an instance", message)
}

/// An instance, and what is known of it.
pub(super) struct State {
    pub(super) instance: Registered,
    pub(super) hash: u64,
    weight: f64,
    in_flight: AtomicUsize,
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Nanoseconds since the program's start; 0 where it is not left out.
    ejected_until: AtomicU64,
    /// The peak of times to answer, in nanoseconds, as the bits of an `f64`, and of when it is.
    peak: AtomicU64,
    peak_at: AtomicU64,
}

fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

impl State {
    fn new(instance: Registered) -> Self {
        let weight = instance.metadata.get("weight").and_then(|weight| weight.parse().ok());
        let weight = weight.filter(|weight: &f64| weight.is_finite() && *weight >= 0.0);
        Self {
            hash: hash(instance.id.as_bytes()),
            instance,
            weight: weight.unwrap_or(1.0),
            in_flight: AtomicUsize::default(),
            failures: AtomicU32::default(),
            ejections: AtomicU32::default(),
            ejected_until: AtomicU64::default(),
            peak: AtomicU64::default(),
            peak_at: AtomicU64::default(),
        }
    }

    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(super) fn ejected(&self) -> bool {
        match self.ejected_until.load(Relaxed) {
            0 => false,
            until => now() < until,
        }
    }

    pub(super) fn succeeded(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    pub(super) fn failed(&self) {
        if self.failures.fetch_add(1, Relaxed) + 1 >= FAILURES {
            self.failures.store(0, Relaxed);
            let times = self.ejections.fetch_add(1, Relaxed) + 1;
            let time = EJECTION.saturating_mul(times).min(LONGEST);
            let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
            self.ejected_until.store(now().saturating_add(time), Relaxed);
        }
    }

    /// What a call to it costs: the peak that it has now, for each call in flight and this one. An
    /// instance that nothing is known of costs as much as its calls in flight.
    pub(super) fn cost(&self) -> f64 {
        let peak = f64::from_bits(self.peak.load(Relaxed));
        let calls = u32::try_from(self.in_flight() + 1).unwrap_or(u32::MAX);
        (peak + 1.0) * f64::from(calls)
    }

    /// The peak rises at once and falls by and by.
    pub(super) fn answered_in(&self, time: Duration) {
        let (time, at) = (time.as_secs_f64() * 1e9, now());
        let past = at.saturating_sub(self.peak_at.swap(at, Relaxed));
        let keep = (-(past as f64) / DECAY).exp();
        let peak = f64::from_bits(self.peak.load(Relaxed));
        let next = if time > peak { time } else { peak * keep + time * (1.0 - keep) };
        self.peak.store(next.to_bits(), Relaxed);
    }
}
