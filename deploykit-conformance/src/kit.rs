//! The harness.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deploykit_core::model::{AppName, ImageBuild, ImageRef, ImageSpec};
use deploykit_core::{Capabilities, Change, Orchestrator, Result};
use futures_util::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};

use crate::bed::Bed;
use crate::behaviours::{self, Behaviour};
use crate::deployer;
use crate::test::Test;
use crate::testapp;

/// A backend under test, or why there is none.
pub type Connected = Result<Arc<dyn Orchestrator>>;

type Kill = Arc<dyn Fn(&Bed) + Send + Sync>;
type Hook = Box<dyn Fn(Bed) -> BoxFuture<'static, ()> + Send + Sync>;

pub(crate) struct Settings {
    pub(crate) connect: Box<dyn Fn(Bed) -> BoxFuture<'static, Connected> + Send + Sync>,
    pub(crate) image: ImageSpec,
    pub(crate) program: String,
    pub(crate) reference: Option<ImageRef>,
    pub(crate) build: Option<ImageBuild>,
    pub(crate) raw: Option<fn(&AppName) -> serde_json::Value>,
    pub(crate) simulated: bool,
    pub(crate) kill_host: Option<Kill>,
    afterwards: Option<Hook>,
}

/// The kit with its settings; [`main!`](crate::main) is the short form.
pub struct Kit {
    settings: Settings,
    first: fn(),
}

impl std::fmt::Debug for Kit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kit").field("image", &self.settings.image).finish_non_exhaustive()
    }
}

impl Kit {
    /// The kit for a backend that is connected to by `connect`. It deploys the program that it is
    /// part of, which then serves as the test application.
    pub fn new<F>(connect: impl Fn(Bed) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Connected> + Send + 'static,
    {
        let program = std::env::current_exe().unwrap_or_default();
        let settings = Settings {
            connect: Box::new(move |bed| Box::pin(connect(bed))),
            image: ImageSpec::binary(&program),
            program: program.to_string_lossy().into_owned(),
            reference: None,
            build: None,
            raw: None,
            simulated: false,
            kill_host: None,
            afterwards: None,
        };
        Self { settings, first: || {} }
    }

    /// Deploys another image of the [test application](crate::testapp), in which it is found at
    /// `program`.
    pub fn image(mut self, image: ImageSpec, program: impl Into<String>) -> Self {
        self.settings.image = image;
        self.settings.program = program.into();
        self
    }

    /// The [test application](crate::testapp) as an image of a registry, for backends that run
    /// executables as well as images: what starts it is its entry point.
    pub fn reference(mut self, image: ImageRef) -> Self {
        self.settings.reference = Some(image);
        self
    }

    /// What the [test application](crate::testapp) is built from, for backends that build images
    /// from Dockerfiles: what starts it is its entry point.
    pub fn build(mut self, build: ImageBuild) -> Self {
        self.settings.build = Some(build);
        self
    }

    /// A raw object, of a name that an app of that name has alone, for backends that take such.
    pub fn raw(mut self, object: fn(&AppName) -> serde_json::Value) -> Self {
        self.settings.raw = Some(object);
        self
    }

    /// For backends that live in the memory of the test: time is tokio's paused one, and a killed
    /// deployer is one whose future is dropped, since a killed process would take the backend
    /// with it.
    pub fn simulated(mut self) -> Self {
        self.settings.simulated = true;
        self.image(ImageSpec::binary(testapp::WORD), testapp::WORD)
    }

    /// Calls `first` before anything else: for programs that serve as something else when asked.
    pub fn first(mut self, first: fn()) -> Self {
        self.first = first;
        self
    }

    /// Lets the faults be those of the host, too: `kill` ends at once, as by `kill -9`, what the
    /// backend runs for itself.
    pub fn host_killed_by(mut self, kill: impl Fn(&Bed) + Send + Sync + 'static) -> Self {
        self.settings.kill_host = Some(Arc::new(kill));
        self
    }

    /// Calls `afterwards` at the end of each test, when its apps have been removed: to stop what
    /// the backend runs for itself. It may panic where something is left.
    pub fn afterwards<F>(mut self, afterwards: impl Fn(Bed) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.settings.afterwards = Some(Box::new(move |bed| Box::pin(afterwards(bed))));
        self
    }

    /// Runs the kit as its command line says, and ends like `cargo test`.
    pub fn run(self) -> ExitCode {
        if let Some(code) = testapp::run_if_asked() {
            return code;
        }
        (self.first)();
        let settings = Arc::new(self.settings);
        if let Some(code) = deployer::run_if_asked(&settings) {
            return code;
        }
        let mut arguments = Arguments::from_args();
        // Most of a test's time is spent waiting for what it has deployed.
        arguments
            .test_threads
            .get_or_insert(2 * std::thread::available_parallelism().map_or(1, usize::from));
        let trials = match capabilities(&settings) {
            Ok(capabilities) => behaviours::chosen(&capabilities)
                .into_iter()
                .map(|behaviour| trial(&settings, behaviour))
                .collect(),
            Err(error) => {
                let message = error.message().unwrap_or_default().to_owned();
                vec![Trial::test("connect", move || Err(message.into()))]
            }
        };
        libtest_mimic::run(&arguments, trials).exit_code()
    }
}

fn trial(settings: &Arc<Settings>, behaviour: Behaviour) -> Trial {
    let settings = Arc::clone(settings);
    Trial::test(behaviour.name, move || {
        on_a_bed(&settings, |settings, bed| {
            Box::pin(async move {
                let test = Arc::new(Test::connect(settings, bed, app_name()).await?);
                // Its panic is the test's failure, and does not keep the app from being removed.
                let ran = tokio::spawn((behaviour.run)(Arc::clone(&test)));
                let limit = Duration::from_secs(if test.settings.simulated { 86_400 } else { 480 });
                let ran = tokio::time::timeout(limit, ran).await;
                let removed = remove(&test).await;
                match ran {
                    Ok(Ok(())) => Ok(removed?),
                    Ok(Err(panic)) => Err(said(panic).into()),
                    Err(_) => Err(format!("it took longer than {limit:?}").into()),
                }
            })
        })
    })
}

/// What a panic said.
fn said(panic: tokio::task::JoinError) -> String {
    let Ok(payload) = panic.try_into_panic() else { return "it was cancelled".into() };
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

/// A name that no other test has, on backends that are shared.
fn app_name() -> AppName {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let unique = format!("kit-{:x}-{number}", std::process::id());
    AppName::new(unique).unwrap_or_else(|_| unreachable!("these are letters and digits"))
}

/// Removes the test's app, and looks for what is left.
pub(crate) async fn remove(test: &Test) -> Result<(), String> {
    let deployer = test.deployer().clone().with_lock_wait(Duration::from_secs(60));
    let app = test.name();
    let change = Change::Remove { app: app.clone(), volumes: true };
    let plan = deployer.plan(change).await.map_err(|e| format!("remove: {e}"))?;
    let done = deployer.apply(plan, &mut deploykit_core::Silent).await;
    done.map_err(|e| format!("remove: {e}"))?;
    let left = left_of(test).await.map_err(|e| format!("look for what is left: {e}"))?;
    if left.is_empty() { Ok(()) } else { Err(format!("left of {app}: {}", left.join(", "))) }
}

/// Everything that is left of the test's app, volumes among it.
pub(crate) async fn left_of(test: &Test) -> Result<Vec<String>> {
    let (app, backend) = (test.name(), test.backend());
    let seen = backend.observe(app).await?;
    let mut left: Vec<String> =
        seen.instances.iter().map(|i| format!("instance {}", i.id)).collect();
    left.extend(seen.endpoints.keys().map(|e| format!("endpoint {e}")));
    left.extend(seen.networks.iter().map(|n| format!("network {n}")));
    left.extend(seen.volumes.iter().map(|v| format!("volume {v}")));
    let secrets = backend.secrets().list(app).await?;
    left.extend(secrets.iter().map(|(s, _)| format!("secret {s}")));
    left.extend(backend.state().keys(app, "").await?.into_iter().map(|k| format!("state {k}")));
    Ok(left)
}

fn capabilities(settings: &Arc<Settings>) -> Result<Capabilities, Failed> {
    let (sender, receiver) = std::sync::mpsc::channel();
    on_a_bed(settings, |settings, bed| {
        Box::pin(async move {
            let backend = (settings.connect)(bed).await?;
            let _ = sender.send(backend.capabilities().clone());
            Ok(())
        })
    })?;
    Ok(receiver.recv()?)
}

/// Runs something on a bed and a runtime of its own.
fn on_a_bed(
    settings: &Arc<Settings>,
    run: impl FnOnce(Arc<Settings>, Bed) -> BoxFuture<'static, Result<(), Failed>>,
) -> Result<(), Failed> {
    let folder = tempfile::Builder::new().prefix("kit").tempdir()?;
    let bed = Bed::new(folder.path().to_owned());
    let settings = Arc::clone(settings);
    runtime(&settings)?.block_on(async {
        let done = run(Arc::clone(&settings), bed.another()).await;
        if let Some(afterwards) = &settings.afterwards {
            afterwards(bed.another()).await;
        }
        done
    })
}

/// A runtime with the clock that the settings ask for.
pub(crate) fn runtime(settings: &Settings) -> std::io::Result<tokio::runtime::Runtime> {
    if settings.simulated {
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()
    } else {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
    }
}
