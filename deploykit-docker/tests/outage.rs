//! An engine that is killed or frozen during an update, that goes away, or whose disk is full. It is
//! one of the test's own, and started again by `testbed/up`:
//! `testbed/run --servers docker cargo test -p deploykit-docker --test outage`.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Duration;

use common::docker;
use deploykit_conformance::{apps, testapp};
use deploykit_core::memory::dial;
use deploykit_core::model::{App, AppName, ImageSpec};
use deploykit_core::{Applied, Change, Deployer, InstanceState, Reason, Result, Silent};
use deploykit_docker::{DockerConfig, Host};
use libtest_mimic::{Arguments, Trial};

/// How long after its beginning an update is disturbed: while it starts instances, and while it
/// ends some.
const MOMENTS: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(900)];
/// How long the engine answers nobody.
const FROZEN: Duration = Duration::from_secs(10);
/// How long a service takes to become healthy that is to be found starting.
const STARTING: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    // What is deployed is this program itself.
    if let Some(code) = testapp::run_if_asked() {
        return code;
    }
    let mut arguments = Arguments::from_args();
    // They all disturb the one engine.
    arguments.test_threads = Some(1);
    let Some(host) = common::engine("DEPLOYKIT_TEST_DOCKER") else { return ExitCode::SUCCESS };
    let trial = |name: &str, disturb: fn(&Engine)| {
        let host = host.clone();
        Trial::test(name, move || {
            for moment in MOMENTS {
                tokio::runtime::Runtime::new().unwrap().block_on(update(&host, moment, disturb));
            }
            Ok(())
        })
    };
    let trials = vec![
        trial("killed_in_an_update", Engine::kill_and_start),
        trial("frozen_in_an_update", Engine::freeze),
        Trial::test("away_for_longer_than_a_lease", alone(&host, away)),
        Trial::test("its_disk_is_full", alone(&host, full)),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn alone<F: Future<Output = ()>>(
    host: &Host,
    run: fn(Host) -> F,
) -> impl FnOnce() -> std::result::Result<(), libtest_mimic::Failed> + use<F> {
    let host = host.clone();
    move || {
        tokio::runtime::Runtime::new().unwrap().block_on(run(host));
        Ok(())
    }
}

/// The engine's process.
struct Engine {
    pid: PathBuf,
}

impl Engine {
    fn of(host: &Host) -> Self {
        let Host::Unix(socket) = host else { panic!("{host} is no socket") };
        Self { pid: socket.with_file_name("docker.pid") }
    }

    fn signal(&self, signal: &str) -> String {
        let pid = std::fs::read_to_string(&self.pid).unwrap().trim().to_owned();
        let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        pid
    }

    fn kill_and_start(&self) {
        self.kill();
        self.start();
    }

    fn kill(&self) {
        let pid = self.signal("-KILL");
        let process = PathBuf::from("/proc").join(pid);
        while process.join("exe").exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn start(&self) {
        let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/up");
        assert!(Command::new(up).arg("docker").status().unwrap().success());
    }

    /// Runs a command where the engine runs, and returns whether it succeeded.
    fn beside(&self, command: &[&str]) -> bool {
        let namespace = std::fs::read_to_string(self.pid.with_file_name("namespace.pid")).unwrap();
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["--target", namespace.trim(), "--mount"]).args(command);
        nsenter.output().unwrap().status.success()
    }

    fn freeze(&self) {
        self.signal("-STOP");
        std::thread::sleep(FROZEN);
        self.signal("-CONT");
    }
}

async fn up(deployer: &Deployer, app: App) -> Result<Applied> {
    let ready = deployer.prepare(app).await?;
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
    deployer.apply(plan, &mut Silent).await
}

/// Whatever becomes of the update, the next one converges, and nothing is left over.
async fn update(host: &Host, moment: Duration, disturb: fn(&Engine)) {
    let name = format!("kit-{:x}-outage-{}", std::process::id(), moment.as_millis());
    let keys = tempfile::tempdir().unwrap();
    let config = DockerConfig::new(host.clone()).agent(common::agent()).keys(keys.path());
    let deployer = Deployer::new(Arc::new(deploykit_docker::open(config).await.unwrap()));
    let image = ImageSpec::binary(std::env::current_exe().unwrap());
    let app = |version: &str| {
        let web = apps::service("web", &image, version).replicas(2);
        App::build(name.as_str()).service(web).validate().unwrap()
    };
    let containers = || {
        let ours = format!("label=io.deploykit.app={name}");
        let mut all = docker(host, &["ps", "-a", "--filter", &ours, "--format", "{{.Names}}"]);
        all.as_mut().unwrap().sort();
        all.unwrap()
    };
    up(&deployer, app("1")).await.unwrap();
    let before = containers();
    let updated = tokio::spawn({
        let (deployer, app) = (deployer.clone(), app("2"));
        async move { up(&deployer, app).await }
    });
    tokio::time::sleep(moment).await;
    let engine = Engine::of(host);
    tokio::task::spawn_blocking(move || disturb(&engine)).await.unwrap();
    let updated = updated.await.unwrap();
    eprintln!("disturbed after {moment:?}: {:?}", updated.as_ref().map_err(ToString::to_string));
    let status = match up(&deployer, app("2")).await {
        Ok(_) => deployer.status(&AppName::new(name.as_str()).unwrap()).await.unwrap(),
        Err(error) => panic!("the next one: {error}"),
    };
    let newest = status.revision.unwrap().number;
    let instances = &status.observation.instances;
    assert!(instances.iter().all(|i| i.ready), "{instances:?} of revision {newest}");
    let after = containers();
    assert_eq!(after.len(), before.len(), "{before:?} became {after:?}");
    let stayed = after.iter().filter(|name| name.contains(".web-") && before.contains(name));
    assert_eq!(stayed.count(), 0, "{before:?} became {after:?}");
    let remove = Change::Remove { app: AppName::new(name.as_str()).unwrap(), volumes: true };
    let plan = deployer.plan(remove).await.unwrap();
    deployer.apply(plan, &mut Silent).await.unwrap();
    assert_eq!(containers(), [] as [String; 0]);
}

/// An app of one service, of this program without what debuggers want of it.
struct Small {
    app: AppName,
    program: PathBuf,
    deployer: Deployer,
    _folder: tempfile::TempDir,
}

impl Small {
    async fn new(host: &Host, word: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("testapp");
        let mut strip = Command::new("strip");
        let stripped = strip.arg("-o").arg(&program).arg(std::env::current_exe().unwrap()).status();
        assert!(stripped.unwrap().success());
        let config = DockerConfig::new(host.clone()).agent(common::agent());
        let config = config.keys(folder.path().join("keys"));
        let backend = deploykit_docker::open(config).await.unwrap();
        let deployer = Deployer::new(Arc::new(backend)).with_lock_wait(Duration::from_secs(120));
        let app = AppName::new(format!("kit-{:x}-{word}", std::process::id())).unwrap();
        Self { app, program, deployer, _folder: folder }
    }

    fn version(&self, version: &str) -> App {
        self.healthy_after(version, Duration::ZERO)
    }

    fn healthy_after(&self, version: &str, start: Duration) -> App {
        let web = apps::service("web", &ImageSpec::binary(&self.program), version);
        let web = web.env(dial::HEALTHY_AFTER_MS, start.as_millis().to_string());
        App::build(self.app.as_str()).service(web).validate().unwrap()
    }

    async fn is_ready(&self) -> bool {
        let seen = self.deployer.status(&self.app).await.unwrap().observation;
        seen.instances.len() == 1 && seen.instances[0].ready
    }

    async fn down(&self) {
        let remove = Change::Remove { app: self.app.clone(), volumes: true };
        let plan = self.deployer.plan(remove).await.unwrap();
        self.deployer.apply(plan, &mut Silent).await.unwrap();
    }
}

/// It says that the backend is out of reach, not that the service is ill; and goes on afterwards.
async fn away(host: Host) {
    let small = Small::new(&host, "away").await;
    up(&small.deployer, small.version("1")).await.unwrap();
    // What is prepared is prepared: it goes away while the plan is applied. Not while it starts a
    // container: one that is killed then never lets go of the address that it gives away again.
    let late = || small.healthy_after("2", STARTING);
    let ready = small.deployer.prepare(late()).await.unwrap();
    let plan = small.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    let updated = tokio::spawn({
        let deployer = small.deployer.clone();
        async move { deployer.apply(plan, &mut Silent).await }
    });
    let started = async || {
        let seen = small.deployer.status(&small.app).await.unwrap().observation;
        seen.instances.iter().filter(|i| i.state == InstanceState::Running).count() == 2
    };
    while !started().await {
        tokio::time::sleep(MOMENTS[0]).await;
    }
    let engine = Engine::of(&host);
    engine.kill();
    let error = updated.await.unwrap().unwrap_err();
    let reasons: Vec<&Reason> = error.diagnoses().iter().map(|found| &found.reason).collect();
    let named = reasons.iter().any(|reason| matches!(reason, Reason::BackendUnreachable { .. }));
    assert!(named && error.is_retryable(), "{error}: {reasons:?}");
    engine.start();
    up(&small.deployer, late()).await.unwrap();
    assert!(small.is_ready().await);
    small.down().await;
}

/// The engine's data is on a small file system meanwhile.
async fn full(host: Host) {
    let engine = Engine::of(&host);
    let data = engine.pid.with_file_name("data").display().to_string();
    let ballast = format!("{data}/ballast");
    engine.kill();
    assert!(engine.beside(&["mount", "-t", "tmpfs", "-o", "size=600m", "tmpfs", &data]));
    engine.start();
    let small = Small::new(&host, "full").await;
    up(&small.deployer, small.version("1")).await.unwrap();

    // Until there is no room.
    assert!(!engine.beside(&["dd", "if=/dev/zero", &format!("of={ballast}"), "bs=64k"]));
    let error = up(&small.deployer, small.version("2")).await.unwrap_err();
    assert!(
        error.to_string().contains("no space left") || error.to_string().contains("No space left"),
        "it says why: {error}"
    );
    assert!(small.is_ready().await, "what runs goes on running");

    assert!(engine.beside(&["rm", &ballast]));
    up(&small.deployer, small.version("2")).await.unwrap();
    assert!(small.is_ready().await);
    small.down().await;
    let ours = format!("label=io.deploykit.app={}", small.app);
    assert_eq!(docker(&host, &["ps", "-aq", "--filter", &ours]).unwrap(), [] as [&str; 0]);
    engine.kill();
    engine.beside(&["umount", "--lazy", &data]);
    engine.start();
}
