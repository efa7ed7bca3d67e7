//! Plans: what would be done, as data.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Problem, Result};
use crate::hash::sha256_hex;
use crate::model::{AppName, Condition, NetworkName, ServiceName, VolumeName};
use crate::resolved::ResolvedApp;

/// What a caller wants of an app.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Change {
    /// The app shall be this.
    Deploy(Box<ResolvedApp>),
    /// A service shall have this many instances.
    Scale {
        /// The app.
        app: AppName,
        /// The service.
        service: ServiceName,
        /// How many instances.
        replicas: u32,
    },
    /// Every instance of a service shall be replaced by one alike, by the service's own update
    /// policy.
    Restart {
        /// The app.
        app: AppName,
        /// The service.
        service: ServiceName,
    },
    /// The whole app shall be what it was in an earlier revision.
    Rollback {
        /// The app.
        app: AppName,
        /// The revision; absent for the last one that succeeded before the newest.
        to: Option<u64>,
    },
    /// A job shall run once more, even if it has run.
    RunJob {
        /// The app.
        app: AppName,
        /// The job.
        job: ServiceName,
    },
    /// Nothing of the app shall be left: no instance, secret or revision.
    Remove {
        /// The app.
        app: AppName,
        /// Whether its volumes go too, with all their data.
        volumes: bool,
    },
}

/// What a step wants to be so: a goal, never a command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Goal {
    /// The network is there.
    Network(NetworkName),
    /// The volume is there.
    Volume(VolumeName),
    /// The raw objects are as the revision says. Those that it names no more go with
    /// [`Goal::Collect`].
    Raw,
    /// The service is as the revision says, with all its instances ready.
    Service(ServiceName),
    /// The job has ended with success in a run of this name: its hash, and what tells this run
    /// from others of that hash.
    Job {
        /// The job.
        job: ServiceName,
        /// The name of the run.
        run: String,
    },
    /// The job runs by itself at the times that the revision says, or not at all any more where
    /// that names none.
    Schedule(ServiceName),
    /// Nothing of the service or job is left.
    RemoveService(ServiceName),
    /// The network is gone.
    RemoveNetwork(NetworkName),
    /// The volume and its data are gone.
    RemoveVolume(VolumeName),
    /// What no kept revision names is gone, and so are raw objects that the newest does not name.
    Collect,
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(name) => write!(f, "network {name}"),
            Self::Volume(name) => write!(f, "volume {name}"),
            Self::Raw => f.write_str("raw objects"),
            Self::Service(name) => write!(f, "service {name}"),
            Self::Job { job, .. } => write!(f, "job {job}"),
            Self::Schedule(job) => write!(f, "schedule of {job}"),
            Self::RemoveService(name) => write!(f, "remove {name}"),
            Self::RemoveNetwork(name) => write!(f, "remove network {name}"),
            Self::RemoveVolume(name) => write!(f, "remove volume {name} and its data"),
            Self::Collect => f.write_str("collect what no revision names"),
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What it wants.
    pub goal: Goal,
    /// The steps, by their places in the plan, that come first, and what of them is waited for.
    pub after: Vec<(usize, Condition)>,
    /// Why, for people: `image a -> b`, `drift: 2 of 3 running`.
    pub causes: Vec<String>,
}

/// What a plan does to the record of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Intent {
    /// The app becomes this, as a revision of its own.
    Become(Box<ResolvedApp>),
    /// Nothing of the app is left, its record included.
    Vanish {
        /// Whether volumes go too.
        volumes: bool,
    },
}

/// What would be done: printable, serialisable, applicable later by another process.
///
/// Made by [`Deployer::plan`](crate::Deployer::plan).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub(crate) app: AppName,
    pub(crate) backend: String,
    pub(crate) cause: String,
    pub(crate) intent: Intent,
    pub(crate) steps: Vec<Step>,
    pub(crate) base: Option<u64>,
    pub(crate) fingerprint: String,
    pub(crate) recorded: bool,
}

impl Plan {
    /// The app.
    pub fn app(&self) -> &AppName {
        &self.app
    }

    /// What came to it, like `deploy` or `rollback to 3`.
    pub fn cause(&self) -> &str {
        &self.cause
    }

    /// The steps; `after` refers to their places.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The newest revision when it was made.
    pub fn base(&self) -> Option<u64> {
        self.base
    }

    /// Whether there is nothing to do, not even to record.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.recorded
    }

    /// The plan as a file, for [`Plan::from_json`].
    ///
    /// # Errors
    /// None in practice: a plan is plain data.
    pub fn to_json(&self) -> Result<String> {
        let plan = serde_json::to_value(self).map_err(|e| unreadable(e.to_string()))?;
        let digest = sha256_hex(plan.to_string().as_bytes());
        let file = serde_json::json!({ "plan": plan, "digest": digest });
        serde_json::to_string_pretty(&file).map_err(|e| unreadable(e.to_string()))
    }

    /// A plan from the text of [`Plan::to_json`].
    ///
    /// # Errors
    /// `Invalid` where the text is no plan or has been edited.
    pub fn from_json(text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct File {
            plan: serde_json::Value,
            digest: String,
        }
        let file: File = serde_json::from_str(text).map_err(|e| unreadable(e.to_string()))?;
        if sha256_hex(file.plan.to_string().as_bytes()) != file.digest {
            let what = "the plan was changed after it was made";
            let fix = "change the app and make a new plan";
            return Err(Error::invalid("read the plan", vec![Problem::new("digest", what, fix)]));
        }
        serde_json::from_value(file.plan).map_err(|e| unreadable(e.to_string()))
    }
}

fn unreadable(why: String) -> Error {
    Error::new(
        ErrorKind::Invalid,
        "read the plan",
        format!("this is no plan of this version: {why}"),
    )
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.app, self.cause)?;
        if self.is_empty() {
            return write!(f, "  nothing to do");
        }
        if self.steps.is_empty() {
            return write!(f, "  nothing runs differently; the change is recorded");
        }
        for (place, step) in self.steps.iter().enumerate() {
            let sign = match &step.goal {
                Goal::RemoveService(_) | Goal::RemoveNetwork(_) | Goal::RemoveVolume(_) => '-',
                _ if step.causes.iter().any(|c| c == "new") => '+',
                _ => '~',
            };
            if place > 0 {
                writeln!(f)?;
            }
            write!(f, "  {sign} {}", step.goal)?;
            if !step.causes.is_empty() {
                write!(f, ": {}", step.causes.join(", "))?;
            }
        }
        Ok(())
    }
}
