//! Deployers that are killed or frozen at any moment: whoever comes next converges.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{all, docker};
use deploykit_conformance::{apps, testapp};
use deploykit_core::memory::dial;
use deploykit_core::model::{App, AppName, ImageSpec, SecretName};
use deploykit_core::{Change, Deployer, Outcome, Result, SecretValue, Silent};
use deploykit_docker::{DockerConfig, Host};
use libtest_mimic::{Arguments, Trial};
use serde::{Deserialize, Serialize};

/// How many deaths there are where `DEPLOYKIT_SEEDS` says nothing else.
const SEEDS: u64 = 10;
/// How many apps are disturbed at once: most of the time passes until a dead one's lease is over.
const AT_ONCE: u64 = 5;
/// How long a lock that was left behind is waited for.
const PATIENCE: Duration = Duration::from_secs(120);
/// The variable with an order to a deployer that is a process of its own.
const ORDER: &str = "DEPLOYKIT_DEATHS_ORDER";

fn main() -> ExitCode {
    // What is deployed is this program itself.
    if let Some(code) = testapp::run_if_asked() {
        return code;
    }
    if let Ok(order) = std::env::var(ORDER) {
        return obey(&serde_json::from_str(&order).unwrap());
    }
    let arguments = Arguments::from_args();
    let Some(host) = common::engine("DEPLOYKIT_TEST_DOCKER") else { return ExitCode::SUCCESS };
    let trial = |name: &str, run: fn(Host)| {
        let host = host.clone();
        Trial::test(name, move || {
            run(host);
            Ok(())
        })
    };
    let trials =
        vec![trial("killed_at_any_moment", killed), trial("frozen_past_its_lease", frozen)];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// What a deployer does.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Scene {
    Up,
    Update,
    Rollback,
    Down,
}

const SCENES: [Scene; 4] = [Scene::Up, Scene::Update, Scene::Rollback, Scene::Down];

/// An order to a deployer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    host: String,
    keys: PathBuf,
    app: AppName,
    scene: Scene,
}

fn obey(order: &Order) -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let done = runtime.block_on(async {
        let deployer = deployer(&order.host.parse()?, &order.keys).await;
        change(&deployer, &order.app, order.scene).await
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn deployer(host: &Host, keys: &Path) -> Deployer {
    let config = DockerConfig::new(host.clone()).agent(common::agent()).keys(keys);
    let backend = deploykit_docker::open(config).await.unwrap();
    Deployer::new(Arc::new(backend)).with_lock_wait(PATIENCE)
}

fn app(name: &AppName, version: &str) -> App {
    let image = ImageSpec::binary(std::env::current_exe().unwrap());
    let web = apps::service("web", &image, version).replicas(2).secret("db").config("title");
    let back = apps::service("back", &image, version).volume("data");
    // An update takes a moment.
    let (web, back) = (web.env(dial::START_DELAY_MS, "300"), back.env(dial::START_DELAY_MS, "300"));
    let app = App::build(name.as_str()).volume("data", Default::default());
    app.config("title", version).service(web).service(back).validate().unwrap()
}

async fn up(deployer: &Deployer, app: App) -> Result<()> {
    let ready = deployer.prepare(app).await?;
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
    deployer.apply(plan, &mut Silent).await.map(drop)
}

async fn change(deployer: &Deployer, name: &AppName, scene: Scene) -> Result<()> {
    let change = match scene {
        Scene::Up => return up(deployer, app(name, "1")).await,
        Scene::Update => return up(deployer, app(name, "2")).await,
        Scene::Rollback => Change::Rollback { app: name.clone(), to: Some(1) },
        Scene::Down => Change::Remove { app: name.clone(), volumes: true },
    };
    let plan = deployer.plan(change).await?;
    deployer.apply(plan, &mut Silent).await.map(drop)
}

/// An app of a test's own.
struct Bed {
    host: Host,
    app: AppName,
    keys: tempfile::TempDir,
    deployer: Deployer,
}

impl Bed {
    async fn new(host: &Host, word: &str) -> Self {
        let app = AppName::new(format!("kit-{:x}-{word}", std::process::id())).unwrap();
        let keys = tempfile::tempdir().unwrap();
        let deployer = deployer(host, keys.path()).await;
        Self { host: host.clone(), app, keys, deployer }
    }

    async fn secret(&self) {
        let db = SecretName::new("db").unwrap();
        let store = self.deployer.secrets(&self.app);
        store.ensure(&db, SecretValue::new("value")).await.unwrap();
    }

    async fn to(&self, scene: Scene) {
        change(&self.deployer, &self.app, scene).await.unwrap();
    }

    /// A deployer that is a process of its own.
    fn start(&self, scene: Scene) -> Child {
        let keys = self.keys.path().to_owned();
        let order = Order { host: self.host.to_string(), keys, app: self.app.clone(), scene };
        Command::new(std::env::current_exe().unwrap())
            .env(ORDER, serde_json::to_string(&order).unwrap())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// The app is there whole, in that version, and nothing beside it.
    async fn is_whole(&self, version: &str, context: &str) {
        let status = self.deployer.status(&self.app).await.unwrap();
        assert_eq!(status.revision.unwrap().outcome, Outcome::Succeeded, "{context}");
        let instances = &status.observation.instances;
        assert!(instances.iter().all(|instance| instance.ready), "{context}: {instances:?}");
        let ready = self.deployer.prepare(app(&self.app, version)).await.unwrap();
        let plan = self.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
        assert!(plan.is_empty(), "{context}: {plan}");

        // By name, too: what has lost its labels would be found by that alone.
        let name = format!("name={}\\.", self.app);
        let format = "{{.Names}} {{.State}}";
        let found = docker(&self.host, &["ps", "-a", "--filter", &name, "--format", format]);
        let found = found.unwrap();
        let of = |word: &str| {
            let prefix = format!("{}.{word}", self.app);
            found.iter().filter(|c| c.starts_with(&prefix) && c.ends_with(" running")).count()
        };
        let words = ["web-", "back-", "proxy.web ", "proxy.back ", "secrets.web.", "deploykit."];
        let counts = words.map(of);
        assert_eq!(counts, [2, 1, 1, 1, 1, 1], "{context}: {found:#?}");
        assert_eq!(found.len(), 7, "{context}: half named or left over: {found:#?}");
    }

    async fn end(&self, context: &str) {
        self.to(Scene::Down).await;
        assert_eq!(all(&self.host, &self.app), [] as [&str; 0], "{context}");
    }
}

fn killed(host: Host) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("DEPLOYKIT_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (mut struck, mut failures) = (0, Vec::new());
    let total = seeds.end - seeds.start;
    let mut left = seeds;
    runtime.block_on(async {
        while !left.is_empty() {
            let these = left.start..left.end.min(left.start + AT_ONCE);
            left.start = these.end;
            let deaths: Vec<_> =
                these.map(|seed| tokio::spawn(one_death(host.clone(), seed))).collect();
            for death in deaths {
                match death.await {
                    Ok(died) => struck += u64::from(died),
                    Err(failure) => failures.push(failure.to_string()),
                }
            }
        }
    });
    assert_eq!(failures, [] as [String; 0], "of {total}");
    eprintln!("{struck} of {total} deployers died before they were done");
    assert!(struck * 2 >= total, "they were too quick: {struck} of {total}");
}

/// Returns whether the deployer died before it was done.
async fn one_death(host: Host, seed: u64) -> bool {
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = SCENES[usize::try_from(seed % 4).unwrap()];
    let bed = Bed::new(&host, &format!("death-{seed}")).await;
    bed.secret().await;
    up(&bed.deployer, app(&bed.app, "0")).await.unwrap();
    // How long a change takes at present is found out by making one.
    let began = Instant::now();
    bed.to(Scene::Up).await;
    let usual = began.elapsed().mul_f64(if scene == Scene::Down { 0.5 } else { 1.0 });
    let moment = usual.mul_f64(0.1 + 0.8 * random.f64());
    if scene == Scene::Up {
        bed.to(Scene::Down).await;
        bed.secret().await;
    }
    let mut other = bed.start(scene);
    tokio::time::sleep(moment).await;
    let struck = other.try_wait().unwrap().is_none();
    other.kill().unwrap();
    let left = tokio::task::spawn_blocking(move || other.wait_with_output().unwrap()).await;
    let said = String::from_utf8_lossy(&left.unwrap().stderr).into_owned();
    let context = format!("SEED={seed}: {scene:?}, killed after {moment:?} ({struck}) {said}");
    eprintln!("{context}");

    // Who deploys again gives the secret again, too.
    if scene == Scene::Up {
        bed.secret().await;
    }
    let mut changed = change(&bed.deployer, &bed.app, scene).await;
    // The engine may get done meanwhile with what the dead one asked for last.
    if changed.as_ref().is_err_and(|error| error.message().contains("what runs has changed")) {
        eprintln!("{context}: planned once more");
        changed = change(&bed.deployer, &bed.app, scene).await;
    }
    if let Err(error) = changed {
        panic!("{context}: {error}");
    }
    match scene {
        Scene::Rollback => bed.is_whole("0", &context).await,
        Scene::Up => bed.is_whole("1", &context).await,
        Scene::Update => bed.is_whole("2", &context).await,
        Scene::Down => assert_eq!(all(&host, &bed.app), [] as [&str; 0], "{context}"),
    }
    bed.end(&context).await;
    struck
}

fn frozen(host: Host) {
    let signal = |pid: u32, signal: &str| {
        assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
    };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bed = Bed::new(&host, "frozen").await;
        bed.secret().await;
        up(&bed.deployer, app(&bed.app, "0")).await.unwrap();
        let began = Instant::now();
        bed.to(Scene::Up).await;
        let moment = began.elapsed().mul_f64(0.4);
        let mut other = bed.start(Scene::Update);
        tokio::time::sleep(moment).await;
        signal(other.id(), "-STOP");
        assert!(other.try_wait().unwrap().is_none(), "it was too quick");

        // Not before its lease is over.
        up(&bed.deployer, app(&bed.app, "3")).await.unwrap();
        bed.is_whole("3", "before the other is resumed").await;

        signal(other.id(), "-CONT");
        let ended = tokio::task::spawn_blocking(move || other.wait_with_output().unwrap()).await;
        let ended = ended.unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        assert!(!ended.status.success(), "it must not believe that it has deployed");
        assert!(said.contains("lock") && said.contains("run it again"), "it says why: {said}");

        // What came through all the same is found and undone.
        let ready = bed.deployer.prepare(app(&bed.app, "3")).await.unwrap();
        let plan = bed.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
        eprintln!("resumed: {said}found to undo: {plan}");
        bed.deployer.apply(plan, &mut Silent).await.unwrap();
        bed.is_whole("3", "after the next pass").await;
        bed.end("at the end").await;
    });
}
