//! The policies.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use deploykit_core::Result;

use super::Picked;
use super::hash::{self, hash};
use super::snapshot::{Shared, Snapshot, State, none};

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

impl Snapshot {
    /// An instance for the next call.
    ///
    /// # Errors
    /// `Unavailable` where there is none.
    pub fn pick(&self) -> Result<Picked> {
        self.0.pick()
    }

    /// The instance of a key, as [`Balancer::pick_for`](super::Balancer::pick_for).
    ///
    /// # Errors
    /// `Unavailable` where there is none.
    pub fn pick_for(&self, key: &[u8]) -> Result<Picked> {
        self.0.pick_for(key)
    }
}

impl Shared {
    pub(super) fn pick(&self) -> Result<Picked> {
        let states = &self.states;
        let all = states.len();
        if all == 0 {
            return Err(none());
        }
        let state = match self.policy {
            Policy::RoundRobin => self.healthy(self.turn.fetch_add(1, Relaxed) % all),
            Policy::Weighted => {
                let at = fastrand::f64() * self.weights.last().copied().unwrap_or_default();
                self.healthy(self.weights.partition_point(|end| *end <= at).min(all - 1))
            }
            Policy::LeastRequests => {
                let from = fastrand::usize(..all);
                let (after, before) = (states[from..].iter(), states[..from].iter());
                let turn = after.chain(before);
                let least = turn.min_by_key(|state| (state.ejected(), state.in_flight()));
                least.unwrap_or(&states[0])
            }
            Policy::PowerOfTwo => {
                let (one, other) = self.two();
                if one.in_flight() <= other.in_flight() { one } else { other }
            }
            Policy::PeakEwma => {
                let (one, other) = self.two();
                if one.cost() <= other.cost() { one } else { other }
            }
            Policy::Rendezvous | Policy::Maglev | Policy::BoundedLoad => {
                return self.pick_for(&fastrand::u64(..).to_le_bytes());
            }
        };
        Ok(self.picked(state))
    }

    pub(super) fn pick_for(&self, key: &[u8]) -> Result<Picked> {
        let states = &self.states;
        if states.is_empty() {
            return Err(none());
        }
        let key = hash(key);
        let rank = |state: &Arc<State>| hash::mixed(key, state.hash);
        let state = match self.policy {
            Policy::Rendezvous => states.iter().max_by_key(|state| (!state.ejected(), rank(state))),
            Policy::BoundedLoad => {
                let calls: usize = states.iter().map(|state| state.in_flight()).sum();
                let bound = ((calls + 1) * 5).div_ceil(states.len() * 4);
                let room = |state: &Arc<State>| !state.ejected() && state.in_flight() < bound;
                states.iter().max_by_key(|state| (room(state), rank(state)))
            }
            _ => {
                let place = usize::try_from(key % hash::SLOTS as u64).unwrap_or_default();
                let slot = self.table()[place] as usize;
                Some(self.healthy(slot))
            }
        };
        Ok(self.picked(state.unwrap_or(&states[0])))
    }

    fn picked(&self, state: &Arc<State>) -> Picked {
        Picked::new(state.clone(), self.policy == Policy::PeakEwma)
    }

    /// The one at that place, or the next one that is not left out; where all are, that one.
    fn healthy(&self, place: usize) -> &Arc<State> {
        let states = &self.states;
        let (after, before) = (states[place..].iter(), states[..place].iter());
        after.chain(before).find(|state| !state.ejected()).unwrap_or(&states[place])
    }

    /// Two different ones, where there are two.
    fn two(&self) -> (&Arc<State>, &Arc<State>) {
        let all = self.states.len();
        let random = fastrand::u64(..);
        let one = scaled(random >> 32, all);
        let step = scaled(random & 0xffff_ffff, all.saturating_sub(1)) + 1;
        let other = if one + step >= all { (one + step).saturating_sub(all) } else { one + step };
        (self.healthy(one), self.healthy(other))
    }
}

/// A number of 32 bits, scaled to less than `below`.
fn scaled(random: u64, below: usize) -> usize {
    usize::try_from((random * below as u64) >> 32).unwrap_or_default()
}
