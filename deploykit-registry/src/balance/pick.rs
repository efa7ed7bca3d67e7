//! The policies.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use deploykit_core::Result;

use super::Picked;
use super::hash::{self, hash};
use super::snapshot::{Shared, Snapshot};
use super::state::State;

/// How often another place is drawn for one that is passed over, before the next one is taken: the
/// next one alone would get the calls of both.
const DRAWS: usize = 4;

/// How an instance is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Policy {
    /// Each in its turn.
    RoundRobin,
    /// At random, as often as the `weight` in its metadata says (1 where there is none).
    Weighted,
    /// The one with the fewest calls in flight.
    LeastRequests,
    /// Of two at random, the one with fewer calls in flight.
    PowerOfTwo,
    /// Of two at random, the one that answers sooner: the peak of its times to answer, which is
    /// forgotten by and by, times its calls in flight.
    PeakEwma,
    /// By key: the instance that its hash with the key ranks highest. Of n, the coming or going of
    /// one moves 1/n of the keys.
    Rendezvous,
    /// By key: a table of [Maglev](https://research.google/pubs/pub44824/), faster than rendezvous
    /// hashing among many instances, at the price of a few keys more that move.
    Maglev,
    /// By key, as rendezvous, but none gets more than 1.25 times the mean of calls in flight
    /// ([bounded loads](https://arxiv.org/abs/1608.01350)).
    BoundedLoad,
}

impl Policy {
    /// Whether it looks at how many calls are in flight.
    #[inline]
    pub(super) fn counts(self) -> bool {
        matches!(self, Self::LeastRequests | Self::PowerOfTwo | Self::PeakEwma | Self::BoundedLoad)
    }
}

impl Snapshot {
    /// An instance for the next call.
    ///
    /// # Errors
    /// `Unavailable` where there is none.
    pub fn pick(&self) -> Result<Picked> {
        self.0.pick(Shared::choose)
    }

    /// The instance of a key, as [`Balancer::pick_for`](super::Balancer::pick_for).
    ///
    /// # Errors
    /// `Unavailable` where there is none.
    pub fn pick_for(&self, key: &[u8]) -> Result<Picked> {
        self.0.pick(|shared| shared.choose_for(key))
    }
}

impl Shared {
    #[inline]
    pub(super) fn choose(&self) -> Option<&Arc<State>> {
        let states = &self.states;
        let all = states.len();
        if all == 0 {
            return None;
        }
        match self.balancing.policy {
            Policy::RoundRobin => Some(&states[self.drawn(|| self.take_turn())]),
            Policy::Weighted => Some(
                &states[self.drawn(|| {
                    let at = fastrand::f64() * self.weights.last().copied().unwrap_or_default();
                    self.weights.partition_point(|end| *end <= at).min(all - 1)
                })],
            ),
            Policy::LeastRequests => {
                let from = self.drawn(|| random(all));
                let turn = (from..all).chain(0..from);
                // Who was drawn has not been passed over.
                let passed_over = |place: usize| place != from && states[place].passed_over();
                let least =
                    turn.min_by_key(|place| (passed_over(*place), states[*place].in_flight()));
                least.map(|place| &states[place])
            }
            Policy::PowerOfTwo => {
                let (one, other) = self.two();
                Some(if one.in_flight() <= other.in_flight() { one } else { other })
            }
            Policy::PeakEwma => {
                let (one, other) = self.two();
                Some(if one.cost() <= other.cost() { one } else { other })
            }
            Policy::Rendezvous | Policy::Maglev | Policy::BoundedLoad => {
                self.choose_for(&fastrand::u64(..).to_le_bytes())
            }
        }
    }

    pub(super) fn choose_for(&self, key: &[u8]) -> Option<&Arc<State>> {
        let states = &self.states;
        if states.is_empty() {
            return None;
        }
        let key = hash(key);
        let rank = |state: &Arc<State>| hash::mixed(key, state.hash);
        match self.balancing.policy {
            Policy::Rendezvous => states.iter().max_by_key(|state| (!state.ejected(), rank(state))),
            Policy::BoundedLoad => {
                let calls: usize = states.iter().map(|state| state.in_flight()).sum();
                let bound = ((calls + 1) * 5).div_ceil(states.len() * 4);
                let room = |state: &Arc<State>| !state.ejected() && state.in_flight() < bound;
                states.iter().max_by_key(|state| (room(state), rank(state)))
            }
            _ => {
                let place = self.table()[hash::slot(key)] as usize;
                Some(&states[self.from(place, State::ejected)])
            }
        }
    }

    /// The next place in turn. The turn is a fraction of all, in 64 bits after the point: what each
    /// adds is all of it, divided by how many there are, so that no pick has to divide.
    #[inline]
    fn take_turn(&self) -> usize {
        let turn = self.turn.fetch_add(self.step, Relaxed);
        usize::try_from((u128::from(turn) * self.states.len() as u128) >> 64).unwrap_or_default()
    }

    /// That place, or the next one whose instance is not passed over; where all are, that one.
    fn from(&self, place: usize, passed_over: impl Fn(&State) -> bool) -> usize {
        let all = self.states.len();
        let mut places = (place..all).chain(0..place);
        places.find(|place| !passed_over(&self.states[*place])).unwrap_or(place)
    }

    /// A place that is drawn; see [`DRAWS`].
    #[inline]
    fn drawn(&self, draw: impl Fn() -> usize) -> usize {
        for _ in 0..DRAWS {
            let place = draw();
            if !self.states[place].passed_over() {
                return place;
            }
        }
        self.from(draw(), State::passed_over)
    }

    /// Two different ones, where there are two.
    fn two(&self) -> (&Arc<State>, &Arc<State>) {
        let all = self.states.len();
        let drawn = fastrand::u64(..);
        let one = scaled(drawn >> 32, all);
        let step = scaled(drawn & 0xffff_ffff, all.saturating_sub(1)) + 1;
        let other = if one + step >= all { (one + step).saturating_sub(all) } else { one + step };
        let at = |place: usize| {
            let state = &self.states[place];
            if state.passed_over() { &self.states[self.drawn(|| random(all))] } else { state }
        };
        (at(one), at(other))
    }
}

/// Less than `below`.
fn random(below: usize) -> usize {
    scaled(fastrand::u64(..) >> 32, below)
}

/// A number of 32 bits, scaled to less than `below`.
fn scaled(random: u64, below: usize) -> usize {
    usize::try_from((random * below as u64) >> 32).unwrap_or_default()
}
