//! What is known of an instance.

use std::sync::LazyLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use deploykit_core::Registered;

use super::hash::hash;

/// An instance is left out after so many failures in a row,
const FAILURES: u32 = 5;
/// for so long at first, and for so much longer each time,
const EJECTION: Duration = Duration::from_secs(10);
/// at most.
const LONGEST: Duration = Duration::from_secs(300);

/// In what time a peak of the times to answer is forgotten to a third, in nanoseconds.
const DECAY: f64 = 10e9;

/// The share of its calls that an instance gets at first.
const FIRST_SHARE: f64 = 0.1;

/// An instance, and what is known of it.
pub(super) struct State {
    pub(super) instance: Registered,
    pub(super) hash: u64,
    pub(super) weight: f64,
    in_flight: AtomicUsize,
    failures: AtomicU32,
    ejections: AtomicU32,
    /// Nanoseconds since the program's start; 0 where it is not left out.
    ejected_until: AtomicU64,
    /// When it gets its share of calls, likewise, and how long it takes until then.
    slow_until: AtomicU64,
    slow_start: u64,
    /// The peak of times to answer, in nanoseconds, as the bits of an `f64`, and of when it is.
    peak: AtomicU64,
    peak_at: AtomicU64,
}

/// Nanoseconds since the program's start, or nearly.
pub(super) fn now() -> u64 {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    nanoseconds(START.elapsed())
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

impl State {
    /// One that gets its share of calls after `slow_start`.
    pub(super) fn new(instance: Registered, slow_start: Duration) -> Self {
        let weight = instance.metadata.get("weight").and_then(|weight| weight.parse().ok());
        let weight = weight.filter(|weight: &f64| weight.is_finite() && *weight >= 0.0);
        let slow_until =
            if slow_start.is_zero() { 0 } else { now().saturating_add(nanoseconds(slow_start)) };
        Self {
            hash: hash(instance.id.as_bytes()),
            instance,
            weight: weight.unwrap_or(1.0),
            in_flight: AtomicUsize::default(),
            failures: AtomicU32::default(),
            ejections: AtomicU32::default(),
            ejected_until: AtomicU64::default(),
            slow_until: slow_until.into(),
            slow_start: nanoseconds(slow_start),
            peak: AtomicU64::default(),
            peak_at: AtomicU64::default(),
        }
    }

    #[inline]
    pub(super) fn begin(&self) {
        self.in_flight.fetch_add(1, Relaxed);
    }

    #[inline]
    pub(super) fn end(&self) {
        self.in_flight.fetch_sub(1, Relaxed);
    }

    #[inline]
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    /// Whether it is left out for its failures.
    #[inline]
    pub(super) fn ejected(&self) -> bool {
        match self.ejected_until.load(Relaxed) {
            0 => false,
            until => now() < until,
        }
    }

    /// Whether this call goes to another one: for its failures, or since it has just come.
    #[inline]
    pub(super) fn passed_over(&self) -> bool {
        self.ejected() || self.spared()
    }

    fn spared(&self) -> bool {
        let until = self.slow_until.load(Relaxed);
        if until == 0 {
            return false;
        }
        let left = until.saturating_sub(now());
        if left == 0 {
            self.slow_until.store(0, Relaxed);
            return false;
        }
        let share = 1.0 - left as f64 / self.slow_start as f64;
        fastrand::f64() >= share.max(FIRST_SHARE)
    }

    #[inline]
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
            self.ejected_until.store(now().saturating_add(nanoseconds(time)), Relaxed);
        }
    }

    /// What a call to it costs: the peak that it has now, for each call in flight and this one. An
    /// instance that nothing is known of costs as much as its calls in flight.
    pub(super) fn cost(&self) -> f64 {
        let peak = f64::from_bits(self.peak.load(Relaxed));
        let calls = u32::try_from(self.in_flight() + 1).unwrap_or(u32::MAX);
        (peak + 1.0) * f64::from(calls)
    }

    pub(super) fn answered(&self, since: u64) {
        let at = now();
        self.took(at.saturating_sub(since) as f64, at);
    }

    /// The peak rises at once and falls by and by.
    pub(super) fn took(&self, time: f64, at: u64) {
        let past = at.saturating_sub(self.peak_at.swap(at, Relaxed));
        let peak = f64::from_bits(self.peak.load(Relaxed));
        let next = if time > peak {
            time
        } else {
            let past = past as f64 / DECAY;
            // Nearly the same, and much sooner found, for the short times between many calls.
            let keep = if past < 1e-3 { 1.0 - past } else { (-past).exp() };
            peak * keep + time * (1.0 - keep)
        };
        self.peak.store(next.to_bits(), Relaxed);
    }
}
