//! How a service moves to a new revision, and what its instances may do when they end.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{Percent, duration};

/// How a service moves to a new revision.
///
/// ```
/// use deploykit_core::model::{OnFailure, Update};
/// let update = Update::rolling().surge(2).on_failure(OnFailure::Pause);
/// assert_eq!(update.on_failure, OnFailure::Pause);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Update {
    /// The way of replacing instances.
    #[serde(default)]
    pub strategy: Strategy,
    /// The longest time without progress (an instance more that is ready) before the update has
    /// failed. Default 10 min, as in Kubernetes.
    #[serde(default = "ten_minutes", with = "duration")]
    #[schemars(with = "String")]
    pub progress_deadline: Duration,
    /// How long a new instance has to stay ready before it counts. Default 0 s.
    #[serde(default, with = "duration", skip_serializing_if = "Duration::is_zero")]
    #[schemars(with = "String")]
    pub monitor: Duration,
    /// What happens when it fails.
    #[serde(default)]
    pub on_failure: OnFailure,
}

fn ten_minutes() -> Duration {
    Duration::from_secs(600)
}

/// The way of replacing instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Strategy {
    /// A few at a time.
    Rolling(Rolling),
    /// All old ones are stopped, then all new ones are started: no two revisions at once.
    Recreate,
    /// All new ones are started and take the requests at once when all are ready.
    BlueGreen,
    /// Growing shares of the instances are new ones; after the last step, all are, whatever its
    /// share was. For a fixed number of replicas only.
    Canary(Vec<CanaryStep>),
}

/// How many instances a rolling update may have too many or too few.
///
/// With `surge`, a new instance is started before an old one is stopped; with `unavailable` alone,
/// an old one is stopped first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rolling {
    /// How many more than wanted may exist. Default 1.
    #[serde(default = "one")]
    pub surge: u32,
    /// How many fewer than wanted may be ready. Default 0.
    #[serde(default)]
    pub unavailable: u32,
}

fn one() -> u32 {
    1
}

/// One step of a canary update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryStep {
    /// The share of the instances that are new; it must come out as a whole number of them.
    pub share: Percent,
    /// How long that share has to stay ready before the next step. Default 0 s.
    #[serde(default, with = "duration", skip_serializing_if = "Duration::is_zero")]
    #[schemars(with = "String")]
    pub hold: Duration,
}

/// What happens when an update fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum OnFailure {
    /// The whole app goes back to its last revision that succeeded.
    #[default]
    RollBack,
    /// Everything stays as it is then.
    Pause,
    /// The rest of the update goes on; the apply is an error all the same.
    Continue,
}

/// When an instance that has ended is started again (by the backend, with growing pauses).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestartPolicy {
    /// However it ended.
    #[default]
    Always,
    /// When it ended with a failure.
    OnFailure,
    /// Never.
    Never,
}

impl Default for Strategy {
    fn default() -> Self {
        Self::Rolling(Rolling { surge: 1, unavailable: 0 })
    }
}

impl Default for Update {
    fn default() -> Self {
        Self::with(Strategy::default())
    }
}

impl Update {
    fn with(strategy: Strategy) -> Self {
        Self {
            strategy,
            progress_deadline: ten_minutes(),
            monitor: Duration::ZERO,
            on_failure: OnFailure::default(),
        }
    }

    /// A few instances at a time: one new one more than wanted, never fewer ready ones.
    pub fn rolling() -> Self {
        Self::default()
    }

    /// Old ones stop before new ones start.
    pub fn recreate() -> Self {
        Self::with(Strategy::Recreate)
    }

    /// New ones beside the old ones, then all requests move at once.
    pub fn blue_green() -> Self {
        Self::with(Strategy::BlueGreen)
    }

    /// Growing shares of new instances.
    pub fn canary(steps: impl IntoIterator<Item = CanaryStep>) -> Self {
        Self::with(Strategy::Canary(steps.into_iter().collect()))
    }

    /// Start-first: up to `n` instances more than wanted while rolling. No effect on other
    /// strategies.
    pub fn surge(mut self, n: u32) -> Self {
        if let Strategy::Rolling(rolling) = &mut self.strategy {
            rolling.surge = n;
        }
        self
    }

    /// Up to `n` instances fewer than wanted while rolling. With `surge(0)` this is stop-first. No
    /// effect on other strategies.
    pub fn unavailable(mut self, n: u32) -> Self {
        if let Strategy::Rolling(rolling) = &mut self.strategy {
            rolling.unavailable = n;
        }
        self
    }

    /// Sets the longest time without progress.
    pub fn progress_deadline(mut self, deadline: Duration) -> Self {
        self.progress_deadline = deadline;
        self
    }

    /// Sets how long a new instance has to stay ready before it counts.
    pub fn monitor(mut self, monitor: Duration) -> Self {
        self.monitor = monitor;
        self
    }

    /// Sets what happens when it fails.
    pub fn on_failure(mut self, on_failure: OnFailure) -> Self {
        self.on_failure = on_failure;
        self
    }
}
