//! Probes: questions that tell whether an instance has started, may take requests, is alive.
//!
//! The three kinds and their meaning are those of
//! [Kubernetes](https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/).

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::duration;

/// The probes of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probes {
    /// Until it has passed once, the other two are not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<Probe>,
    /// While it fails, the instance takes no requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness: Option<Probe>,
    /// When it fails, the instance is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<Probe>,
}

impl Probes {
    /// The probes that are set, with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Probe)> {
        [("startup", &self.startup), ("readiness", &self.readiness), ("liveness", &self.liveness)]
            .into_iter()
            .filter_map(|(name, probe)| probe.as_ref().map(|p| (name, p)))
    }
}

/// One question, and how often it is asked.
///
/// ```
/// use std::time::Duration;
/// use deploykit_core::model::{Check, Probe};
/// let probe = Probe::http("/healthz").at_port(9090).interval(Duration::from_secs(5));
/// assert_eq!(probe.check.port(), Some(9090));
/// assert_eq!(probe.failure_threshold, 3);
/// assert_eq!(Probe::exec(["/usr/bin/test", "-e", "/ready"]).check.kind(), "exec");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// The question.
    pub check: Check,
    /// The time between two questions once the instance has started (before, it is asked more
    /// often). Default 1 s.
    #[serde(default = "second", with = "duration")]
    #[schemars(with = "String")]
    pub interval: Duration,
    /// How long an answer may take. Default 1 s.
    #[serde(default = "second", with = "duration")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// The time after the start before the first question. Default 0 s.
    #[serde(default, with = "duration", skip_serializing_if = "Duration::is_zero")]
    #[schemars(with = "String")]
    pub initial_delay: Duration,
    /// How many failures in a row make it fail. Default 3.
    #[serde(default = "three")]
    pub failure_threshold: u32,
    /// How many successes in a row make it pass. Default 1.
    #[serde(default = "one")]
    pub success_threshold: u32,
}

fn second() -> Duration {
    Duration::from_secs(1)
}
fn three() -> u32 {
    3
}
fn one() -> u32 {
    1
}

/// A question to an instance. Where `port` is absent, the service's first port is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Check {
    /// A GET whose answer has a status from 200 to 399.
    Http(HttpCheck),
    /// A connection that is accepted.
    Tcp(PortCheck),
    /// A command, run as the instance is, that ends with exit code 0.
    Exec(ExecCheck),
    /// The [gRPC health protocol](https://grpc.io/docs/guides/health-checking/) answering SERVING.
    Grpc(GrpcCheck),
}

/// See [`Check::Http`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    /// The path, beginning with `/`.
    pub path: String,
    /// One of the service's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Headers to send.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}

/// See [`Check::Tcp`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PortCheck {
    /// One of the service's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// See [`Check::Exec`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecCheck {
    /// The program and its arguments; no shell is involved.
    pub command: Vec<String>,
}

/// See [`Check::Grpc`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct GrpcCheck {
    /// The gRPC service that is asked after; empty for the server as a whole.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// One of the service's ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

impl Check {
    /// The port that is asked, where the check names one.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Http(c) => c.port,
            Self::Tcp(c) => c.port,
            Self::Exec(_) => None,
            Self::Grpc(c) => c.port,
        }
    }

    /// The word for this kind of question.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::Tcp(_) => "tcp",
            Self::Exec(_) => "exec",
            Self::Grpc(_) => "grpc",
        }
    }
}

impl Probe {
    /// A probe that asks `check` with the default times.
    pub fn new(check: Check) -> Self {
        Self {
            check,
            interval: second(),
            timeout: second(),
            initial_delay: Duration::ZERO,
            failure_threshold: three(),
            success_threshold: one(),
        }
    }

    /// GETs `path` at the service's first port.
    pub fn http(path: impl Into<String>) -> Self {
        Self::new(Check::Http(HttpCheck {
            path: path.into(),
            port: None,
            headers: BTreeMap::new(),
        }))
    }

    /// Connects to the service's first port.
    pub fn tcp() -> Self {
        Self::new(Check::Tcp(PortCheck::default()))
    }

    /// Runs a command.
    pub fn exec<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self::new(Check::Exec(ExecCheck { command }))
    }

    /// Asks the gRPC health service at the service's first port.
    pub fn grpc() -> Self {
        Self::new(Check::Grpc(GrpcCheck::default()))
    }

    /// Asks another of the service's ports.
    pub fn at_port(mut self, port: u16) -> Self {
        match &mut self.check {
            Check::Http(c) => c.port = Some(port),
            Check::Tcp(c) => c.port = Some(port),
            Check::Grpc(c) => c.port = Some(port),
            Check::Exec(_) => {}
        }
        self
    }

    /// Sets the time between two questions.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Sets how long an answer may take.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many failures in a row make it fail.
    pub fn failure_threshold(mut self, failures: u32) -> Self {
        self.failure_threshold = failures;
        self
    }
}
