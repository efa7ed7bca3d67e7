//! What an engine itself says of what was deployed, beside the behaviour kit.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use common::docker;
use deploykit_conformance::{apps, testapp};
use deploykit_core::memory::dial;
use deploykit_core::model::{
    App, AppBuilder, AppName, Bytes, ImageCopy, ImageFiles, ImageRef, ImageSpec, OnFailure, Port,
    Publish, Resources, SecretName, Service, Update, VolumeScope,
};
use deploykit_core::{
    Applied, Change, Deployer, Error, ErrorKind, ExecRequest, Orchestrator, Plan, Reason, Result,
    SecretValue, Silent, Terminal, TerminalInput, TerminalSize,
};
use deploykit_docker::{DockerConfig, Host};
use futures_util::StreamExt as _;
use libtest_mimic::{Arguments, Trial};
use tokio::sync::Notify;

fn main() -> ExitCode {
    // What is deployed is this program itself.
    if let Some(code) = testapp::run_if_asked() {
        return code;
    }
    let arguments = Arguments::from_args();
    let Some(host) = common::engine("DEPLOYKIT_TEST_DOCKER") else { return ExitCode::SUCCESS };
    let log = tempfile::NamedTempFile::new().unwrap();
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_writer(std::sync::Mutex::new(log.reopen().unwrap()))
        .init();
    let trial = |name: &str, run: fn(Bed)| {
        let (host, log) = (host.clone(), log.path().to_owned());
        Trial::test(name, move || {
            run(Bed::new(host, log));
            Ok(())
        })
    };
    let trials = vec![
        trial("nothing_is_left_after_down", |bed| bed.run(nothing_is_left_after_down)),
        trial("who_looks_brings_nothing_back", |bed| bed.run(who_looks_brings_nothing_back)),
        trial("what_was_removed_by_hand_is_drift", |bed| bed.run(removed_by_hand_is_drift)),
        trial("agents_stay_what_they_are", |bed| bed.run(agents_stay_what_they_are)),
        trial("names_of_others_are_left_alone", |bed| bed.run(names_of_others_are_left_alone)),
        trial("a_secret_shows_nowhere", |bed| bed.run(a_secret_shows_nowhere)),
        trial("want_of_memory_is_named", |bed| bed.run(want_of_memory_is_named)),
        trial("an_image_of_files_runs", |bed| bed.run(an_image_of_files_runs)),
        trial("a_denied_pull_is_told_beforehand", |bed| bed.run(a_denied_pull)),
        trial("a_pull_that_is_cut_off_is_told_and_done_again", |bed| bed.run(a_pull_that_is_cut)),
        trial("ports_of_others_are_left_alone", |bed| bed.run(ports_of_others_are_left_alone)),
        trial("what_cannot_be_started_is_named", |bed| bed.run(what_cannot_be_started)),
        trial("an_image_that_has_gone_is_named", |bed| bed.run(an_image_that_has_gone)),
        trial("a_missing_secret_is_named", |bed| bed.run(a_missing_secret_is_named)),
        trial("secrets_that_are_lost_are_drift", |bed| bed.run(lost_secrets_are_drift)),
        trial("a_command_ends_with_its_terminal", |bed| bed.run(ends_with_its_terminal)),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// An app of a test's own, on the engine.
struct Bed {
    host: Host,
    log: PathBuf,
    app: AppName,
    keys: tempfile::TempDir,
}

impl Bed {
    fn new(host: Host, log: PathBuf) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let app = format!("kit-{:x}-engine-{number}", std::process::id());
        Self { host, log, app: AppName::new(app).unwrap(), keys: tempfile::tempdir().unwrap() }
    }

    /// Runs a test, and removes its app.
    fn run<F: Future<Output = ()> + Send + 'static>(
        self,
        test: impl FnOnce(Arc<Self>, Deployer) -> F + Send + 'static,
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let config = DockerConfig::new(self.host.clone());
            let config = config.agent(common::agent()).keys(self.keys.path());
            let backend = deploykit_docker::open(config).await.unwrap();
            let deployer = Deployer::new(Arc::new(backend));
            let bed = Arc::new(self);
            let tested = tokio::spawn(test(Arc::clone(&bed), deployer.clone())).await;
            down(&deployer, &bed.app, true).await.unwrap();
            tested.unwrap();
        });
    }

    fn app(&self) -> AppBuilder {
        App::build(self.app.as_str())
    }

    fn docker(&self, arguments: &[&str]) -> Vec<String> {
        docker(&self.host, arguments).unwrap()
    }

    /// The names of everything of the app, images among it.
    fn all(&self) -> Vec<String> {
        common::all(&self.host, &self.app)
    }
}

fn image() -> ImageSpec {
    ImageSpec::binary(std::env::current_exe().unwrap())
}

async fn plan(deployer: &Deployer, app: App) -> Result<Plan> {
    let ready = deployer.prepare(app).await?;
    deployer.plan(Change::Deploy(Box::new(ready))).await
}

async fn up(deployer: &Deployer, app: App) -> Result<Applied> {
    let plan = plan(deployer, app).await?;
    deployer.apply(plan, &mut Silent).await
}

async fn down(deployer: &Deployer, app: &AppName, volumes: bool) -> Result<Applied> {
    let plan = deployer.plan(Change::Remove { app: app.clone(), volumes }).await?;
    deployer.apply(plan, &mut Silent).await
}

fn reasons(error: &Error) -> Vec<&Reason> {
    error.diagnoses().iter().map(|diagnosis| &diagnosis.reason).collect()
}

async fn nothing_is_left_after_down(bed: Arc<Bed>, deployer: Deployer) {
    let secret = SecretName::new("db").unwrap();
    deployer.secrets(&bed.app).ensure(&secret, SecretValue::new("value")).await.unwrap();
    let web = |version: &str| {
        let web = apps::service("web", &image(), version).replicas(2);
        let web = web.volume("data").secret("db").config("title");
        let app = bed.app().volume("data", VolumeScope::Shared).config("title", version);
        app.service(web).job(apps::job("setup", &image())).validate().unwrap()
    };
    up(&deployer, web("1")).await.unwrap();
    up(&deployer, web("2")).await.unwrap();
    assert!(bed.all().len() > 8, "the search finds what is there: {:?}", bed.all());
    let done = down(&deployer, &bed.app, false).await.unwrap();
    assert_eq!(done.kept_volumes.len(), 1, "what is kept is told");
    let kept = bed.all();
    assert!(kept.len() == 1 && kept[0].contains(".volume.data"), "{kept:?}");
    down(&deployer, &bed.app, true).await.unwrap();
    assert_eq!(bed.all(), [] as [&str; 0]);
}

/// Another process looks at the app all the time while it comes and goes.
async fn who_looks_brings_nothing_back(bed: Arc<Bed>, deployer: Deployer) {
    let config = DockerConfig::new(bed.host.clone()).agent(common::agent()).keys(bed.keys.path());
    let other: Arc<dyn Orchestrator> = Arc::new(deploykit_docker::open(config).await.unwrap());
    let app = bed.app.clone();
    let looks = tokio::spawn(async move {
        let mut seen = 0_usize;
        loop {
            seen += usize::from(other.state().apps().await.unwrap().contains(&app));
            seen += other.secrets().list(&app).await.unwrap().len();
            if other.state().get(&app, "none").await.unwrap().is_some() {
                return seen;
            }
        }
    });
    let name = SecretName::new("key").unwrap();
    for _ in 0..5 {
        let secrets = deployer.backend().secrets();
        let version = secrets.put(&bed.app, &name, SecretValue::new("a value")).await.unwrap();
        secrets.delete(&bed.app, &name, &[version]).await.unwrap();
        // What the other one has made in vain it takes back.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        loop {
            let left = bed.all();
            if left.is_empty() {
                break;
            }
            assert!(tokio::time::Instant::now() < deadline, "{left:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert!(!looks.is_finished(), "looking went on: {:?}", looks.await);
    looks.abort();
}

async fn an_image_of_files_runs(bed: Arc<Bed>, deployer: Deployer) {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page");
    std::fs::write(&page, "a page").unwrap();
    let program = Some(std::env::current_exe().unwrap());
    let copies = vec![ImageCopy::new(folder.path(), "/srv")];
    let files = ImageFiles { program, copies, ..ImageFiles::default() };
    let web = apps::service("web", &ImageSpec::files(files), "1");
    up(&deployer, bed.app().service(web).validate().unwrap()).await.unwrap();
    let ours = format!("label=io.deploykit.app={}", bed.app);
    let role = "label=io.deploykit.role=instance";
    let found = bed.docker(&["ps", "-q", "--filter", &ours, "--filter", role]);
    let copy = folder.path().join("copy");
    bed.docker(&["cp", &format!("{}:/srv/page", found[0]), copy.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "a page");
}

async fn removed_by_hand_is_drift(bed: Arc<Bed>, deployer: Deployer) {
    let app = || bed.app().service(apps::service("web", &image(), "1").replicas(2));
    let app = || app().validate().unwrap();
    up(&deployer, app()).await.unwrap();
    for role in ["instance", "proxy", "keeper"] {
        let before = bed.all().len();
        let ours = format!("label=io.deploykit.app={}", bed.app);
        let role = format!("label=io.deploykit.role={role}");
        let found = bed.docker(&["ps", "-q", "--filter", &ours, "--filter", &role]);
        bed.docker(&["rm", "-f", &found[0]]);
        let plan = plan(&deployer, app()).await.unwrap();
        // The keeper is brought back by whoever asks it: that is no step.
        if !role.ends_with("keeper") {
            assert!(plan.to_string().contains("drift"), "{role}: {plan}");
        }
        deployer.apply(plan, &mut Silent).await.unwrap();
        assert_eq!(bed.all().len(), before, "{role}: {:?}", bed.all());
    }
}

/// Another program is nobody's change, also where the keeper has to be brought back; services go
/// on without that. Agents are moved where that is asked for.
async fn agents_stay_what_they_are(bed: Arc<Bed>, deployer: Deployer) {
    let app = || bed.app().service(apps::service("web", &image(), "1")).validate().unwrap();
    up(&deployer, app()).await.unwrap();
    let status = deployer.status(&bed.app).await.unwrap();
    let ports = &status.observation.endpoints.values().next().unwrap().ports;
    let port = ports[0].public.as_ref().unwrap().port;
    let ours = format!("label=io.deploykit.app={}", bed.app);
    let agents = |role: &str| {
        let role = format!("label=io.deploykit.role={role}");
        let format = ["--filter", &*role, "--format", "{{.Names}} {{.Image}}"];
        bed.docker(&[&["ps", "--filter", &*ours][..], &format].concat()).remove(0)
    };
    let (keeper, proxy) = (agents("keeper"), agents("proxy"));

    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("deploykit-agent");
    let mut bytes = std::fs::read(common::agent()).unwrap();
    bytes.extend(b"newer");
    std::fs::write(&program, bytes).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
    let config = DockerConfig::new(bed.host.clone()).agent(&program).keys(bed.keys.path());
    let open = async |config: DockerConfig| {
        Deployer::new(Arc::new(deploykit_docker::open(config).await.unwrap()))
    };
    let newer = open(config.clone()).await;
    bed.docker(&["rm", "-f", keeper.split(' ').next().unwrap()]);
    let enough = Arc::new(Notify::new());
    enough.notify_one();
    let outcome = common::traffic::send(port, Duration::from_secs(1), enough).await;
    assert_eq!(outcome.failures, [] as [String; 0], "services go on without their keeper");
    let same = plan(&newer, app()).await.unwrap();
    assert!(same.is_empty(), "{same}");
    assert_eq!((agents("keeper"), agents("proxy")), (keeper.clone(), proxy.clone()));

    let moving = open(config.move_agents(true)).await;
    let moved = plan(&moving, app()).await.unwrap();
    assert!(moved.to_string().contains("its endpoint is to be made anew"), "{moved}");
    moving.apply(moved, &mut Silent).await.unwrap();
    assert!(agents("keeper") != keeper && agents("proxy") != proxy, "{:?}", bed.all());
    assert!(plan(&moving, app()).await.unwrap().is_empty(), "it is moved once");
    let images = bed.docker(&["images", "-q", &format!("deploykit/{}:agent-*", bed.app)]);
    assert_eq!(images.len(), 1, "what nothing runs is gone");
}

async fn names_of_others_are_left_alone(bed: Arc<Bed>, deployer: Deployer) {
    let web = bed.app().service(apps::service("web", &image(), "1")).validate().unwrap();
    // An image without a file does for a container that is never started.
    let empty = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(empty.path(), [0; 1024]).unwrap();
    let id = bed.docker(&["import", empty.path().to_str().unwrap()]).remove(0);
    let proxy = format!("{}.proxy.web", bed.app);
    let theirs = bed.docker(&["create", "--name", &proxy, &id, "x"]).remove(0);
    let refused = up(&deployer, web.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("has not made"), "{refused}");
    let still = bed.docker(&["inspect", "--format", "{{.Id}}", &proxy]);
    assert_eq!(still, [theirs.as_str()], "it is the same as before");
    bed.docker(&["rm", &theirs]);
    bed.docker(&["rmi", &id]);
    up(&deployer, web).await.unwrap();
}

async fn a_secret_shows_nowhere(bed: Arc<Bed>, deployer: Deployer) {
    // Not a text of this program, which is in the image.
    let random = || format!("{:016x}", fastrand::u64(..));
    let value = format!("{}/+&{}", random(), random());
    let secret = SecretName::new("db").unwrap();
    deployer.secrets(&bed.app).ensure(&secret, SecretValue::new(&*value)).await.unwrap();
    let web = apps::service("web", &image(), "1").secret("db");
    up(&deployer, bed.app().service(web).validate().unwrap()).await.unwrap();
    let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &value);
    let forms = [&value[..16], &value[19..], &encoded[..encoded.len() - 4]];

    let ours = format!("label=io.deploykit.app={}", bed.app);
    let mut said = String::new();
    for (list, inspect) in [("ps", "inspect"), ("network", "network"), ("volume", "volume")] {
        let ids = match list {
            "ps" => bed.docker(&["ps", "-aq", "--filter", &ours]),
            other => bed.docker(&[other, "ls", "-q", "--filter", &ours]),
        };
        assert!(!ids.is_empty(), "there is a {list}");
        for id in ids {
            let arguments =
                if list == "ps" { vec![inspect, &id] } else { vec![inspect, "inspect", &id] };
            said += &bed.docker(&arguments).concat();
        }
    }
    assert!(forms.iter().all(|form| !said.contains(form)), "inspect shows it");

    let root = bed.docker(&["info", "--format", "{{.DockerRootDir}}"]).remove(0);
    let log = std::env::var("DEPLOYKIT_TEST_DOCKER_LOG").unwrap();
    let own = bed.log.to_str().unwrap().to_owned();
    assert!(std::fs::metadata(&own).unwrap().len() > 0, "this library has logged");
    // Without what is mounted there: what is in memory is in a mount.
    let search = |text: &str| {
        let mut find = Command::new("find");
        find.args([&root, &log, &own, "-xdev", "-type", "f", "-exec", "grep", "-lF", "-e"]);
        let output = find.args([text, "{}", "+"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let named = search(bed.app.as_str());
    assert!([&root, &log, &own].into_iter().all(|place| named.contains(place)), "{named}");
    for form in forms {
        assert_eq!(search(form), "", "a secret's value is there");
    }
}

async fn want_of_memory_is_named(bed: Arc<Bed>, deployer: Deployer) {
    let memory_limit = Bytes::new(32 << 20);
    let eats = apps::service("eats", &image(), "1").env(dial::EAT_MIB, "256");
    let eats = eats.resources(Resources { memory_limit, ..Resources::default() });
    let app = bed.app().service(eats).validate().unwrap();
    let error = up(&deployer, app).await.unwrap_err();
    let named = |reason: &&Reason| matches!(reason, Reason::OutOfMemory { limit: Some(_) });
    assert!(reasons(&error).iter().any(named), "{error}");
}

async fn a_denied_pull(bed: Arc<Bed>, deployer: Deployer) {
    let Some(registry) = registry("DEPLOYKIT_TEST_REGISTRY_AUTH") else { return };
    let name = ImageRef::new(format!("{registry}/private/app:1")).unwrap();
    let web = Service::build("web", ImageSpec::Reference(name.clone()));
    let app = bed.app().service(web).validate().unwrap();
    let error = plan(&deployer, app).await.unwrap_err();
    let said = format!("{error} {:?}", error.problems());
    assert!(said.contains(name.as_str()), "{said}");
    assert!(said.contains("docker login"), "it says what to do: {said}");
    assert_ne!(error.kind(), ErrorKind::NotFound, "{said}");
    let named = |reason: &&Reason| matches!(reason, Reason::PullDenied { image, .. } if *image == name.to_string());
    assert!(reasons(&error).iter().any(named), "{error}");
}

/// The registry that a variable names.
fn registry(variable: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set");
        eprintln!("skipped: {variable} is not set (testbed/up registry)");
    }
    found
}

async fn a_pull_that_is_cut(bed: Arc<Bed>, deployer: Deployer) {
    let Some(registry) = registry("DEPLOYKIT_TEST_REGISTRY") else { return };
    let program = std::env::current_exe().unwrap();
    let pushed = tokio::task::spawn_blocking(move || common::pushed(&program)).await.unwrap();
    let pushed = pushed.unwrap().to_string();
    let (_, path) = pushed.split_once('/').unwrap();
    let pulls = common::wire::Pulls::before(registry, 1 << 20).await;
    let name = ImageRef::new(format!("{}/{path}", pulls.address)).unwrap();
    let web = || apps::service("web", &ImageSpec::Reference(name.clone()), "1");
    let app = || bed.app().service(web()).validate().unwrap();
    // The engine has tried it several times by then.
    let error = plan(&deployer, app()).await.unwrap_err();
    assert!(error.to_string().contains(name.as_str()), "{error}");
    assert!(error.to_string().contains("registry"), "it says where to look: {error}");
    assert_eq!(bed.all(), [] as [&str; 0], "nothing half pulled is run");
    pulls.heal();
    up(&deployer, app()).await.unwrap();
    let pulled = bed.docker(&["images", "--format", "{{.Repository}} {{.ID}}"]);
    for image in pulled.iter().filter(|image| image.starts_with(&pulls.address.to_string())) {
        down(&deployer, &bed.app, true).await.unwrap();
        bed.docker(&["rmi", "-f", image.rsplit(' ').next().unwrap()]);
    }
}

async fn ports_of_others_are_left_alone(bed: Arc<Bed>, deployer: Deployer) {
    let web = |publish: Publish| {
        let mut web = apps::service("web", &image(), "1");
        web = web.update(Update::rolling().on_failure(OnFailure::Pause));
        bed.app().service(web.port(Port::http(9090).named("own".parse().unwrap()).publish(publish)))
    };
    up(&deployer, web(Publish::Internal).validate().unwrap()).await.unwrap();
    let ours = format!("label=io.deploykit.app={}", bed.app);
    let role = "label=io.deploykit.role=instance";
    let image = bed
        .docker(&["ps", "--filter", &ours, "--filter", role, "--format", "{{.Image}}"])
        .remove(0);
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let published = format!("127.0.0.1:{port}:8080");
    let theirs = format!("theirs-{}", bed.app);
    let run = ["run", "-d", "--name", &theirs, "-p", &published, "-e", "HOST=0.0.0.0", "-e"];
    bed.docker(&[&run[..], &["PORT=8080", &image, testapp::WORD]].concat());
    let state = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}} {{.State.Running}}", &theirs];
    let before = bed.docker(&state);

    let error = up(&deployer, web(Publish::HostPort(port)).validate().unwrap()).await.unwrap_err();
    let named = |reason: &&Reason| matches!(reason, Reason::PortTaken { port: taken, .. } if *taken == port);
    assert!(reasons(&error).iter().any(named), "{error}");
    assert_eq!(bed.docker(&state), before, "it is the same as before");
    bed.docker(&["rm", "-f", &theirs]);
    up(&deployer, web(Publish::HostPort(port)).validate().unwrap()).await.unwrap();
}

async fn what_cannot_be_started(bed: Arc<Bed>, deployer: Deployer) {
    let web = apps::service("web", &image(), "1");
    let mut app = bed.app().service(web).validate().unwrap();
    let web = app.services.values_mut().next().unwrap();
    web.command = vec!["/nonexistent/program".to_owned()];
    let error = up(&deployer, app).await.unwrap_err();
    let named = |reason: &&Reason| matches!(reason, Reason::StartFailed { message } if message.contains("/nonexistent/program"));
    assert!(reasons(&error).iter().any(named), "{error}");
    let ours = format!("label=io.deploykit.app={}", bed.app);
    let role = "label=io.deploykit.role=instance";
    let made = bed.docker(&["ps", "-aq", "--filter", &ours, "--filter", role]);
    assert_eq!(made, [] as [&str; 0], "nothing half made is left");
}

/// Who has loaded it loads it once more.
async fn an_image_that_has_gone(bed: Arc<Bed>, deployer: Deployer) {
    let app = || bed.app().service(apps::service("web", &image(), "1")).validate().unwrap();
    let planned = async || {
        let plan = plan(&deployer, app()).await.unwrap();
        let name = format!("deploykit/{}", bed.app);
        let images = ["images", "--format", "{{.Repository}}:{{.Tag}}", &*name];
        for image in bed.docker(&images).iter().filter(|image| !image.contains(":agent-")) {
            bed.docker(&["rmi", "-f", image]);
        }
        plan
    };
    deployer.apply(planned().await, &mut Silent).await.unwrap();
    down(&deployer, &bed.app, true).await.unwrap();

    let config = DockerConfig::new(bed.host.clone()).agent(common::agent()).keys(bed.keys.path());
    let other = Deployer::new(Arc::new(deploykit_docker::open(config).await.unwrap()));
    let error = other.apply(planned().await, &mut Silent).await.unwrap_err();
    let named = |reason: &&Reason| matches!(reason, Reason::ImageNotFound { .. });
    assert!(reasons(&error).iter().any(named), "{error}");
}

async fn a_missing_secret_is_named(bed: Arc<Bed>, deployer: Deployer) {
    let web = || bed.app().service(apps::service("web", &image(), "1").secret("db"));
    let web = || web().validate().unwrap();
    let named = |reason: &&Reason| matches!(reason, Reason::SecretMissing { secret } if secret.contains("db"));
    let error = plan(&deployer, web()).await.unwrap_err();
    assert!(reasons(&error).iter().any(named), "beforehand: {error}");
    let secret = SecretName::new("db").unwrap();
    deployer.secrets(&bed.app).ensure(&secret, SecretValue::new("value")).await.unwrap();
    let plan = plan(&deployer, web()).await.unwrap();
    let store = deployer.backend().secrets();
    store.delete(&bed.app, &secret, &[1]).await.unwrap();
    let error = deployer.apply(plan, &mut Silent).await.unwrap_err();
    assert!(reasons(&error).iter().any(named), "it has gone meanwhile: {error}");
}

async fn lost_secrets_are_drift(bed: Arc<Bed>, deployer: Deployer) {
    let secret = SecretName::new("db").unwrap();
    deployer.secrets(&bed.app).ensure(&secret, SecretValue::new("value")).await.unwrap();
    let web = || bed.app().service(apps::service("web", &image(), "1").secret("db"));
    up(&deployer, web().validate().unwrap()).await.unwrap();
    let ours = format!("label=io.deploykit.app={}", bed.app);
    let role = "label=io.deploykit.role=secrets";
    let holder = bed.docker(&["ps", "-q", "--filter", &ours, "--filter", role]).remove(0);
    bed.docker(&["rm", "-f", &holder]);
    let seen = deployer.status(&bed.app).await.unwrap().observation;
    let trouble = seen.instances[0].trouble.as_ref();
    assert!(matches!(trouble, Some(Reason::SecretMissing { .. })), "{seen:?}");
    up(&deployer, web().validate().unwrap()).await.unwrap();
    let seen = deployer.status(&bed.app).await.unwrap().observation;
    assert!(seen.instances.iter().all(|instance| instance.ready), "{seen:?}");
    assert_eq!(bed.docker(&["ps", "-q", "--filter", &ours, "--filter", role]).len(), 1);
}

/// The engine itself would leave it running.
async fn ends_with_its_terminal(bed: Arc<Bed>, deployer: Deployer) {
    let web = apps::service("web", &image(), "1");
    up(&deployer, bed.app().service(web).validate().unwrap()).await.unwrap();
    let seen = deployer.status(&bed.app).await.unwrap().observation;
    let instance = &seen.instances[0].id;
    let ours = format!("label=io.deploykit.app={}", bed.app);
    let role = "label=io.deploykit.role=instance";
    let container = bed.docker(&["ps", "-q", "--filter", &ours, "--filter", role]).remove(0);
    let processes = || bed.docker(&["top", &container, "-o", "pid"]).len();
    let before = processes();
    let program = std::env::current_exe().unwrap();
    let program = format!("/usr/local/bin/{}", program.file_name().unwrap().display());
    let mut request = ExecRequest::new([&program, testapp::WORD, "exec", "terminal"]);
    let (terminal, user) = Terminal::new(TerminalSize { columns: 80, rows: 24 });
    request.terminal = Some(terminal);
    let mut said = deployer.exec(&bed.app, instance, request).await.unwrap();
    assert!(user.send(TerminalInput::Keys(b"size\r".to_vec())).await);
    said.next().await.unwrap().unwrap();
    assert_eq!(processes(), before + 1);
    drop(said);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while processes() > before {
        assert!(std::time::Instant::now() < deadline, "it runs on");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(!user.send(TerminalInput::Keys(vec![3])).await, "nobody is there");
}
