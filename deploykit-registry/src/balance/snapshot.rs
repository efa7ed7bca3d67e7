//! The instances at one time.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Registered};

use super::options::Balancing;
use super::pick::Policy;
use super::state::State;
use super::{Picked, hash};

/// The instances of a service at one time. Clones are the same; picks from it take no lock.
#[derive(Clone)]
pub struct Snapshot(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) balancing: Balancing,
    pub(super) states: Vec<Arc<State>>,
    /// Those of the preferred zone, where there are others, too.
    near: Option<Box<Self>>,
    pub(super) turn: AtomicU64,
    /// What a pick adds to `turn`.
    pub(super) step: u64,
    /// Where each one's share ends, for [`Policy::Weighted`].
    pub(super) weights: Vec<f64>,
    table: OnceLock<Vec<u32>>,
}

impl Shared {
    fn new(balancing: Balancing, states: Vec<Arc<State>>) -> Self {
        let near = balancing.zone.as_ref().and_then(|zone| {
            let of_zone = |state: &&Arc<State>| state.instance.metadata.get("zone") == Some(zone);
            let near: Vec<_> = states.iter().filter(of_zone).cloned().collect();
            let balancing = Balancing { zone: None, ..balancing.clone() };
            let some = !near.is_empty() && near.len() < states.len();
            some.then(|| Box::new(Self::new(balancing, near)))
        });
        let mut end = 0.0;
        let mut share = |state: &Arc<State>| {
            end += state.weight;
            end
        };
        let weights = match balancing.policy {
            Policy::Weighted => states.iter().map(&mut share).collect(),
            _ => Vec::new(),
        };
        let step = (u64::MAX / states.len().max(1) as u64).wrapping_add(1);
        let (turn, table) = (AtomicU64::default(), OnceLock::new());
        let shared = Self { balancing, states, near, turn, step, weights, table };
        if shared.balancing.policy == Policy::Maglev && !shared.states.is_empty() {
            shared.table();
        }
        shared
    }

    pub(super) fn table(&self) -> &[u32] {
        self.table.get_or_init(|| hash::table(&self.states))
    }

    /// What is chosen of the preferred zone, or else of all.
    #[inline]
    pub(super) fn pick(
        &self,
        choose: impl Fn(&Self) -> Option<&Arc<State>>,
    ) -> Result<Picked, Error> {
        let near = self.near.as_deref().and_then(&choose).filter(|state| !state.ejected());
        match near.or_else(|| choose(self)) {
            Some(state) => Ok(Picked::new(state.clone(), self.balancing.policy)),
            None => Err(none()),
        }
    }
}

fn none() -> Error {
    let message = "no instance is registered; register one, or wait until one is";
    Error::new(ErrorKind::Unavailable, "pick an instance", message)
}

impl Snapshot {
    /// Of these instances, with nothing known of them.
    pub fn new(instances: Vec<Registered>, balancing: impl Into<Balancing>) -> Self {
        let state = |instance| Arc::new(State::new(instance, Duration::ZERO));
        let states = instances.into_iter().map(state).collect();
        Self(Arc::new(Shared::new(balancing.into(), states)))
    }

    /// Of other instances, balanced over likewise: what is known of those that stay is kept.
    #[must_use]
    pub fn with(&self, instances: Vec<Registered>) -> Self {
        let Shared { balancing, states, turn, .. } = self.0.as_ref();
        let known: BTreeMap<_, _> = states.iter().map(|s| (&s.instance.id, s)).collect();
        let state = |instance: Registered| match known.get(&instance.id) {
            Some(state) if state.instance == instance => Arc::clone(state),
            Some(state) if state.instance.address == instance.address => {
                Arc::new(State::new(instance, Duration::ZERO))
            }
            // With nobody else to take its calls, it takes them.
            _ if known.is_empty() => Arc::new(State::new(instance, Duration::ZERO)),
            _ => Arc::new(State::new(instance, balancing.slow_start)),
        };
        let next = Shared::new(balancing.clone(), instances.into_iter().map(state).collect());
        next.turn.store(turn.load(Relaxed), Relaxed);
        Self(Arc::new(next))
    }

    /// The instances, in the order of their ids.
    pub fn instances(&self) -> impl Iterator<Item = &Registered> {
        self.0.states.iter().map(|state| &state.instance)
    }
}
