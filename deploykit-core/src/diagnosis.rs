//! Why a rollout failed or is stuck: the same answer on every backend.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::ServiceName;

/// One reason why a service or job is not up, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// The service or job.
    pub service: ServiceName,
    /// The instance, where one was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What is wrong.
    pub reason: Reason,
}

/// What keeps an instance from being ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// The image or executable does not exist.
    ImageNotFound {
        /// Which one.
        image: String,
    },
    /// The registry refused to hand it out.
    PullDenied {
        /// Which one.
        image: String,
        /// What the registry said.
        message: String,
    },
    /// It ends again and again.
    CrashLoop {
        /// The last exit, like `exit code 1` or `signal 9`.
        exit: String,
        /// How often it was started again.
        restarts: u32,
        /// Its last lines of output.
        log: Vec<String>,
    },
    /// It runs, and its probe does not pass.
    ProbeFailing {
        /// `startup`, `readiness` or `liveness`.
        probe: String,
        /// What the probe saw last.
        answer: String,
        /// Its last lines of output.
        log: Vec<String>,
    },
    /// A job ended with a failure.
    JobFailed {
        /// The last exit.
        exit: String,
        /// Its last lines of output.
        log: Vec<String>,
    },
    /// No node takes it.
    Unschedulable {
        /// Why.
        message: String,
    },
    /// Something that it depends on is not there.
    DependencyBlocked {
        /// What it waits for.
        on: ServiceName,
        /// The state of that.
        message: String,
    },
    /// Its host port or address is taken.
    PortTaken {
        /// The port.
        port: u16,
        /// Who has it, as far as is known.
        message: String,
    },
    /// It was ended for want of memory.
    OutOfMemory {
        /// Its limit in bytes, where one is set.
        limit: Option<u64>,
    },
    /// A secret that it needs does not exist.
    SecretMissing {
        /// Which one.
        secret: String,
    },
    /// The backend does not answer.
    BackendUnreachable {
        /// What happened.
        message: String,
    },
    /// It was still starting when the deadline passed.
    Slow {
        /// What it was waiting for.
        message: String,
    },
    /// It could not be started.
    StartFailed {
        /// What the backend said.
        message: String,
    },
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.service)?;
        if let Some(instance) = &self.instance {
            write!(f, " ({instance})")?;
        }
        write!(f, ": {}", self.reason)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tail = |log: &[String]| match log.last() {
            Some(line) => format!("; last line: {line}"),
            None => String::new(),
        };
        match self {
            Self::ImageNotFound { image } => write!(f, "image not found: {image}"),
            Self::PullDenied { image, message } => write!(f, "pull of {image} denied: {message}"),
            Self::CrashLoop { exit, restarts, log } => {
                write!(f, "crashes ({exit}, restarted {restarts} times){}", tail(log))
            }
            Self::ProbeFailing { probe, answer, log } => {
                write!(f, "{probe} probe fails: {answer}{}", tail(log))
            }
            Self::JobFailed { exit, log } => write!(f, "job failed ({exit}){}", tail(log)),
            Self::Unschedulable { message } => write!(f, "cannot be placed: {message}"),
            Self::DependencyBlocked { on, message } => write!(f, "waits for {on}: {message}"),
            Self::PortTaken { port, message } => write!(f, "port {port} is taken: {message}"),
            Self::OutOfMemory { limit: Some(limit) } => {
                write!(f, "out of memory (limit {limit} bytes)")
            }
            Self::OutOfMemory { limit: None } => write!(f, "out of memory"),
            Self::SecretMissing { secret } => write!(f, "secret {secret} does not exist"),
            Self::BackendUnreachable { message } => write!(f, "backend unreachable: {message}"),
            Self::Slow { message } => write!(f, "not ready in time: {message}"),
            Self::StartFailed { message } => write!(f, "could not be started: {message}"),
        }
    }
}
