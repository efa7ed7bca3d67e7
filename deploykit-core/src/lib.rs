//! The model, plans, traits and rollout engine of DeployKit, with in-memory backends.
//!
//! Start at [`model::App`] for what an application is, at [`Deployer`] for what can be done with
//! it, at [`Runtime`] or [`Orchestrator`] for a backend of one's own.

mod capability;
mod deployer;
mod diagnosis;
mod error;
mod event;
mod feature;
mod hash;
pub mod memory;
pub mod model;
mod observation;
mod orchestrator;
mod plan;
mod policy;
mod reconciler;
mod registry;
mod resolved;
mod revision;
mod runtime;
mod secret;
mod state;
mod terminal;

pub use capability::{Capabilities, Fencing, SelfHeal};
pub use deployer::{AppSecrets, Applied, Deployer, Status};
pub use diagnosis::{Diagnosis, Reason};
pub use error::{Error, ErrorKind, Problem, Result};
pub use event::{Event, InstanceChange, Progress, Silent};
pub use feature::{Feature, UnknownFeature};
pub use hash::SpecHash;
pub use observation::{Endpoint, EndpointPort, Exit, Instance, InstanceState, Observation};
pub use orchestrator::{
    Drift, EventSender, ExecOutput, ExecRequest, ImageBuilder, LogLine, LogQuery, Orchestrator,
    OutputStream, StepContext,
};
pub use plan::{Change, Goal, Intent, Plan, Step};
pub use policy::ImagePolicy;
pub use reconciler::Reconciler;
pub use registry::{
    AppRegistry, Coordinator, Lock, LockEntry, LockStore, Locks, Registered, Registration,
    ServiceRegistry,
};
pub use resolved::{EndpointSpec, ResolvedApp, ScheduleSpec, Template};
pub use revision::{Outcome, Revision};
pub use runtime::{InstanceSpec, Runtime};
pub use secret::{SecretStore, SecretValue};
pub use state::{Entry, Expected, Fence, Lease, StateStore};
pub use terminal::{Terminal, TerminalInput, TerminalSize, TerminalUser};
