//! What a backend is to the rest of the library.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::capability::Capabilities;
use crate::error::{Problem, Result};
use crate::event::Event;
use crate::model::{App, AppName, ImageSpec, ResolvedImage, ServiceName};
use crate::observation::{Exit, Observation};
use crate::plan::Step;
use crate::resolved::ResolvedApp;
use crate::secret::SecretStore;
use crate::state::{Fence, StateStore};
use crate::terminal::Terminal;

/// A backend. Those with controllers of their own (Kubernetes, Swarm) implement it; hosts without
/// one implement [`Runtime`](crate::Runtime) and are made one by
/// [`Reconciler`](crate::Reconciler).
///
/// It is passed around as `Arc<dyn Orchestrator>`.
#[async_trait]
pub trait Orchestrator: Send + Sync {
    /// The word for this kind of backend, like `local`.
    fn name(&self) -> &str;

    /// Which one it is among its kind: a folder, an engine's id, a context and namespace. A plan
    /// made on one is refused on another.
    fn identity(&self) -> String;

    /// What it can do.
    fn capabilities(&self) -> &Capabilities;

    /// What of an app it cannot do beyond what its [capabilities](Self::capabilities) say: values
    /// and combinations. Asked before anything is done; empty where all is well.
    fn refuses(&self, app: &App) -> Vec<Problem>;

    /// Where revisions and the deploy lock are kept.
    fn state(&self) -> &dyn StateStore;

    /// Where secrets are kept.
    fn secrets(&self) -> &dyn SecretStore;

    /// What makes images ready for it.
    fn images(&self) -> &dyn ImageBuilder;

    /// What it runs of an app. Changes nothing.
    async fn observe(&self, app: &AppName) -> Result<Observation>;

    /// Of these services, whose instances and endpoints are what `target` says, and of raw objects:
    /// what of the backend's own objects is not. Changes nothing. For backends whose objects people
    /// change by hand; others have nothing to tell, which is the default.
    async fn drift(&self, target: &ResolvedApp, services: &[ServiceName]) -> Result<Drift> {
        let _ = (target, services);
        Ok(Drift::default())
    }

    /// Reaches the goal of one step, and returns when it is reached.
    ///
    /// Idempotent: a goal that is reached already takes no mutating call. Dropping the future
    /// leaves the goal half reached; the next call goes on from there.
    ///
    /// # Errors
    /// `Failed` with [diagnoses](crate::Error::diagnoses) where the goal cannot be reached;
    /// `Conflict` where the fence is old.
    async fn execute(&self, step: &Step, context: &StepContext) -> Result<()>;

    /// Yields each time when `observe` would answer something new. Changes that come together may
    /// be told once. Ends only with an error.
    async fn watch(&self, app: &AppName) -> Result<BoxStream<'static, Result<()>>>;

    /// The output of instances.
    async fn logs(
        &self,
        app: &AppName,
        query: &LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>>;

    /// Runs a command as an instance runs: with its environment, beside it.
    ///
    /// Dropping the stream ends the command.
    async fn exec(
        &self,
        app: &AppName,
        instance: &str,
        request: ExecRequest,
    ) -> Result<BoxStream<'static, Result<ExecOutput>>>;
}

/// Makes what an [`ImageSpec`] names ready for a backend.
#[async_trait]
pub trait ImageBuilder: Send + Sync {
    /// Builds, copies or looks up what is needed so that instances of any host of the backend can
    /// run the image, and fixes its digest. Idempotent. What takes long is reported to `events`, as
    /// [`Event::Image`].
    async fn build(
        &self,
        app: &AppName,
        image: &ImageSpec,
        events: &EventSender,
    ) -> Result<ResolvedImage>;
}

/// What of a backend's objects is not as it shall be, in words for the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drift {
    /// Of services.
    pub services: BTreeMap<ServiceName, Vec<String>>,
    /// Of raw objects.
    pub raw: Vec<String>,
}

/// What a step is executed with.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// The right to change the app.
    pub fence: Fence,
    /// The revision that is being applied.
    pub revision: u64,
    /// What the app shall be.
    pub target: Arc<ResolvedApp>,
    /// All that must not be collected: the apps of the revisions that are kept, the target among
    /// them.
    pub kept: Arc<Vec<ResolvedApp>>,
    /// Where to report.
    pub events: EventSender,
}

/// Takes reports from whoever executes a step.
#[derive(Clone, Debug)]
pub struct EventSender(pub(crate) mpsc::UnboundedSender<Event>);

impl EventSender {
    /// A sender and what it sends to.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Reports what happens to an image. Never waits.
    pub fn image(&self, image: &ImageSpec, message: impl Into<String>) {
        self.send(Event::Image { image: image.to_string(), message: message.into() });
    }

    /// Reports an event. Never waits; an event that nobody listens for is lost.
    pub fn send(&self, event: Event) {
        let _ = self.0.send(event);
    }
}

/// Whose output, and from where.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    /// Of this service or job alone.
    pub service: Option<ServiceName>,
    /// Of this instance alone.
    pub instance: Option<String>,
    /// At most this many of the last lines of each instance; absent for all.
    pub tail: Option<usize>,
    /// Whether to go on with lines as they are written.
    pub follow: bool,
}

/// A line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogLine {
    /// The service or job.
    pub service: ServiceName,
    /// The instance.
    pub instance: String,
    /// Which of its outputs.
    pub stream: OutputStream,
    /// When it was written, where that is known.
    pub at: Option<SystemTime>,
    /// The line, without its end. Bytes that are no UTF-8 are replaced.
    pub line: String,
}

/// Standard output or standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A command to run beside an instance.
#[derive(Debug)]
#[non_exhaustive]
pub struct ExecRequest {
    /// The program and its arguments; no shell is involved.
    pub command: Vec<String>,
    /// What it reads on standard input, to the end. Empty where there is a terminal.
    pub stdin: Vec<u8>,
    /// A terminal, which is its standard input and both its outputs: what it writes is then all of
    /// [`OutputStream::Stdout`]. Only for backends whose [capabilities](Capabilities::terminals)
    /// say so.
    pub terminal: Option<Terminal>,
}

impl ExecRequest {
    /// Runs `command` with nothing on standard input.
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        let command = command.into_iter().map(Into::into).collect();
        Self { command, stdin: Vec::new(), terminal: None }
    }
}

/// What a command says. `Exit` comes last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecOutput {
    /// Written to one of its outputs.
    Output(OutputStream, Vec<u8>),
    /// How it ended.
    Exit(Exit),
}
