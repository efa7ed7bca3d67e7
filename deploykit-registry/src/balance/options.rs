//! How instances are balanced over.

use std::time::Duration;

use super::Policy;

/// A [`Policy`], with what else decides over who is picked. A policy alone is one, too.
///
/// ```
/// use std::time::Duration;
/// use deploykit_registry::{Balancing, Policy};
/// let balancing = Balancing::from(Policy::PowerOfTwo)
///     .zone("eu-1")
///     .slow_start(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancing {
    pub(super) policy: Policy,
    pub(super) zone: Option<String>,
    pub(super) slow_start: Duration,
}

impl Balancing {
    /// Prefers the instances whose metadata have this `zone`: others are picked only while none of
    /// it is there, or all of it are left out for their failures.
    #[must_use]
    pub fn zone(self, zone: impl Into<String>) -> Self {
        Self { zone: Some(zone.into()), ..self }
    }

    /// Gives an instance that has come anew a tenth of its calls at first, and more until it gets
    /// its share after this time. Not those that were there from the start, and not calls by key,
    /// which would go elsewhere and back.
    #[must_use]
    pub fn slow_start(self, time: Duration) -> Self {
        Self { slow_start: time, ..self }
    }
}

impl From<Policy> for Balancing {
    fn from(policy: Policy) -> Self {
        Self { policy, zone: None, slow_start: Duration::ZERO }
    }
}
