//! What a backend can do, said beforehand.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::feature::Feature;

/// What a backend can do. What it cannot is refused in the plan, never ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Capabilities {
    /// Who starts a crashed instance again.
    pub self_heal: SelfHeal,
    /// What keeps a deployer that has lost its lock from changing things.
    pub fencing: Fencing,
    /// Whether controllers of the backend's own make and replace instances at any time. Then a plan
    /// rests on what these work from, not on the instances of a moment. Default no.
    #[serde(default)]
    pub controllers: bool,
    /// Whether instances outlive the program that deployed them.
    pub survives_deployer: bool,
    /// Whether a secret's value can be read back.
    pub secrets_readable: bool,
    /// Whether a command beside an instance can have a [terminal](crate::Terminal). Default no.
    #[serde(default)]
    pub terminals: bool,
    /// The parts of the model that it honours beyond those that every backend does.
    pub features: BTreeSet<Feature>,
}

impl Capabilities {
    /// A backend that honours what every backend does and `features`.
    pub fn new(
        self_heal: SelfHeal,
        fencing: Fencing,
        features: impl IntoIterator<Item = Feature>,
    ) -> Self {
        Self {
            self_heal,
            fencing,
            controllers: false,
            survives_deployer: true,
            secrets_readable: true,
            terminals: false,
            features: features.into_iter().collect(),
        }
    }

    /// Whether it honours `feature`.
    pub fn has(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }
}

/// Who starts a crashed instance again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SelfHeal {
    /// An engine of its own.
    Engine,
    /// A supervisor, as long as that runs.
    WhileHosted,
    /// Nobody.
    None,
}

/// What keeps a deployer that has lost its lock from changing things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fencing {
    /// The epoch is checked in the same transaction as the change.
    Enforced,
    /// Each object is written by compare-and-swap.
    ObjectCas,
    /// Late changes are found and undone by the next pass.
    Detect,
}
