//! What an engine itself says of what was deployed, beside the behaviour kit.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::docker;
use deploykit_conformance::{apps, testapp};
use deploykit_core::memory::dial;
use deploykit_core::model::{
    App, AppBuilder, AppName, Bytes, ImageCopy, ImageFiles, ImageRef, ImageSpec, Resources,
    SecretName, Service, VolumeScope,
};
use deploykit_core::{
    Applied, Change, Deployer, Error, ErrorKind, Plan, Reason, Result, SecretValue, Silent,
};
use deploykit_docker::{DockerConfig, Host};
use libtest_mimic::{Arguments, Trial};

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
        trial("what_was_removed_by_hand_is_drift", |bed| bed.run(removed_by_hand_is_drift)),
        trial("names_of_others_are_left_alone", |bed| bed.run(names_of_others_are_left_alone)),
        trial("a_secret_shows_nowhere", |bed| bed.run(a_secret_shows_nowhere)),
        trial("want_of_memory_is_named", |bed| bed.run(want_of_memory_is_named)),
        trial("an_image_of_files_runs", |bed| bed.run(an_image_of_files_runs)),
        trial("a_denied_pull_is_told_beforehand", |bed| bed.run(a_denied_pull)),
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
        let ours = format!("label=io.deploykit.app={}", self.app);
        let mut all = self.docker(&["ps", "-a", "--filter", &ours, "--format", "{{.Names}}"]);
        all.extend(self.docker(&["network", "ls", "--filter", &ours, "--format", "{{.Name}}"]));
        all.extend(self.docker(&["volume", "ls", "--filter", &ours, "--format", "{{.Name}}"]));
        let images = self.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        all.extend(images.into_iter().filter(|image| image.contains(self.app.as_str())));
        all
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
    let Ok(registry) = std::env::var("DEPLOYKIT_TEST_REGISTRY_AUTH") else {
        assert!(std::env::var_os("CI").is_none(), "DEPLOYKIT_TEST_REGISTRY_AUTH is not set");
        eprintln!("skipped: DEPLOYKIT_TEST_REGISTRY_AUTH is not set (testbed/up registry)");
        return;
    };
    let name = ImageRef::new(format!("{registry}/private/app:1")).unwrap();
    let web = Service::build("web", ImageSpec::Reference(name.clone()));
    let app = bed.app().service(web).validate().unwrap();
    let error = plan(&deployer, app).await.unwrap_err();
    let said = format!("{error} {:?}", error.problems());
    assert!(said.contains(name.as_str()), "{said}");
    assert!(said.contains("docker login"), "it says what to do: {said}");
    assert_ne!(error.kind(), ErrorKind::NotFound, "{said}");
}
