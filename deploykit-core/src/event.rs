//! What long operations report while they run.

use serde::{Deserialize, Serialize};

use crate::diagnosis::Diagnosis;
use crate::model::ServiceName;
use crate::plan::Goal;

/// One thing that happened. Serialisable, so that a caller can write JSON lines or feed a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// An image is being made ready: a line of its build, or where a layer of it is.
    Image {
        /// The image, as the app says it.
        image: String,
        /// What happens.
        message: String,
    },
    /// A revision has been recorded and its steps begin.
    RevisionStarted {
        /// Its number.
        revision: u64,
        /// How many steps it takes.
        steps: usize,
    },
    /// A step begins.
    StepStarted {
        /// Its place in the plan.
        step: usize,
        /// What it wants.
        goal: Goal,
    },
    /// The instances of a service have been started; they need not be ready.
    Started {
        /// The service or job.
        service: ServiceName,
    },
    /// An instance has changed.
    Instance {
        /// The service or job.
        service: ServiceName,
        /// The instance.
        instance: String,
        /// What became of it.
        change: InstanceChange,
    },
    /// The number of a service's ready instances has changed.
    Progress {
        /// The service.
        service: ServiceName,
        /// How many of the new revision are ready.
        ready: u32,
        /// How many there shall be.
        wanted: u32,
    },
    /// A step has reached its goal.
    StepFinished {
        /// Its place in the plan.
        step: usize,
        /// What it wanted.
        goal: Goal,
    },
    /// A step has failed.
    StepFailed {
        /// Its place in the plan.
        step: usize,
        /// What it wanted.
        goal: Goal,
        /// What happened.
        message: String,
        /// Why.
        diagnoses: Vec<Diagnosis>,
    },
    /// The app goes back to an earlier revision.
    RollingBack {
        /// The revision that failed.
        from: u64,
        /// The revision whose content is restored.
        to: u64,
    },
    /// A revision's apply has ended.
    RevisionFinished {
        /// Its number.
        revision: u64,
        /// `succeeded` or `failed`.
        outcome: String,
    },
}

/// What became of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum InstanceChange {
    /// It has been started.
    Started,
    /// It is ready.
    Ready,
    /// It takes no new requests and ends those in flight.
    Draining,
    /// It has been stopped and removed.
    Removed,
}

/// Takes events as they happen. Any `FnMut(&Event)` is one.
pub trait Progress: Send {
    /// Something happened.
    fn event(&mut self, event: &Event);
}

impl<F: FnMut(&Event) + Send> Progress for F {
    fn event(&mut self, event: &Event) {
        self(event);
    }
}

impl Progress for Box<dyn Progress> {
    fn event(&mut self, event: &Event) {
        (**self).event(event);
    }
}

/// Reports nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&mut self, _: &Event) {}
}
