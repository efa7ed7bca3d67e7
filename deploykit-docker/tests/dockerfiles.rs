//! Images that an engine builds from Dockerfiles, by both of its builders.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::docker;
use deploykit_conformance::{apps, testapp};
use deploykit_core::model::{App, AppName, BuildSecret, ImageBuild, ImageSpec};
use deploykit_core::{
    Applied, Change, Deployer, ErrorKind, Event, EventSender, ImageBuilder, Plan, Result, Silent,
};
use deploykit_docker::{Docker, DockerConfig, Host};
use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    // What is deployed is this program itself.
    if let Some(code) = testapp::run_if_asked() {
        return code;
    }
    let arguments = Arguments::from_args();
    let Some(host) = common::engine("DEPLOYKIT_TEST_DOCKER") else { return ExitCode::SUCCESS };
    let mut engines = vec![("oldest", host)];
    if let Ok(new) = std::env::var("DEPLOYKIT_TEST_DOCKER_NEW") {
        engines.push(("newest", new.parse().unwrap()));
    }
    let mut trials = Vec::new();
    for (engine, host) in engines {
        for (builder, buildkit) in [("buildkit", true), ("classic", false)] {
            let mut trial = |name: &str, run: fn(&Bed)| {
                let host = host.clone();
                trials.push(Trial::test(format!("{engine}::{builder}::{name}"), move || {
                    let bed = Bed::new(host, buildkit);
                    run(&bed);
                    bed.end();
                    Ok(())
                }));
            };
            trial("what_is_built_runs", what_is_built_runs);
            trial("a_broken_build_says_why", a_broken_build_says_why);
            trial("secrets_are_in_no_layer", secrets_are_in_no_layer);
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

struct Bed {
    host: Host,
    buildkit: bool,
    app: AppName,
    folder: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
}

impl Bed {
    fn new(host: Host, buildkit: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let app = format!("kit-{:x}-built-{number}", std::process::id());
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        Self { host, buildkit, app: AppName::new(app).unwrap(), folder, runtime }
    }

    fn config(&self) -> DockerConfig {
        let config = DockerConfig::new(self.host.clone()).agent(common::agent());
        config.keys(self.folder.path().join("keys")).buildkit(self.buildkit)
    }

    fn deployer(&self) -> Deployer {
        let backend = self.runtime.block_on(deploykit_docker::open(self.config())).unwrap();
        Deployer::new(Arc::new(backend))
    }

    fn context(&self) -> std::path::PathBuf {
        let context = self.folder.path().join("context");
        std::fs::create_dir_all(&context).unwrap();
        context
    }

    fn docker(&self, arguments: &[&str]) -> Vec<String> {
        docker(&self.host, arguments).unwrap()
    }

    fn images(&self) -> Vec<String> {
        let mut images = self.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        images.retain(|image| image.contains(self.app.as_str()));
        images
    }

    fn built(&self, build: ImageBuild) -> Result<String> {
        self.runtime.block_on(async {
            let docker = Docker::open(self.config()).await?;
            Ok(docker
                .build(&self.app, &ImageSpec::build(build), &EventSender::channel().0)
                .await?
                .digest)
        })
    }

    fn end(&self) {
        for image in self.images() {
            self.docker(&["rmi", &image]);
        }
    }
}

fn web(bed: &Bed, build: &ImageBuild) -> App {
    let web = apps::service("web", &ImageSpec::build(build.clone()), "1");
    App::build(bed.app.as_str()).service(web).validate().unwrap()
}

async fn plan(deployer: &Deployer, app: App) -> Result<Plan> {
    let ready = deployer.prepare(app).await?;
    deployer.plan(Change::Deploy(Box::new(ready))).await
}

async fn up(deployer: &Deployer, app: App) -> Result<Applied> {
    let plan = plan(deployer, app).await?;
    deployer.apply(plan, &mut Silent).await
}

fn what_is_built_runs(bed: &Bed) {
    let deployer = bed.deployer();
    let context = bed.context();
    let mut build = common::context(&context);
    build.args.insert("TITLE".into(), "given".into());
    build.labels.insert("mine".into(), "label".into());
    let mut told = Vec::new();
    let mut tell = |event: &Event| told.push(format!("{event:?}"));
    bed.runtime.block_on(deployer.prepare_with(web(bed, &build), &mut tell)).unwrap();
    assert!(told.iter().any(|line| line.contains("COPY")), "{told:?}");
    bed.runtime.block_on(up(&deployer, web(bed, &build))).unwrap();

    let role = "label=io.deploykit.role=instance";
    let ours = format!("label=io.deploykit.app={}", bed.app);
    let found = bed.docker(&["ps", "-q", "--filter", &ours, "--filter", role]).remove(0);
    let labels = "{{.Config.Labels.title}} {{.Config.Labels.mine}}";
    assert_eq!(bed.docker(&["inspect", "--format", labels, &found]), ["given label"]);
    let copy = bed.folder.path().join("copy");
    bed.docker(&["cp", &format!("{found}:/srv/page"), copy.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&copy).unwrap(), "a page");

    // The same again is the same image, whoever looks.
    let again = bed.runtime.block_on(plan(&bed.deployer(), web(bed, &build))).unwrap();
    assert!(again.is_empty(), "{again}");
    let images = bed.images();
    assert!(images.iter().all(|image| !image.contains(":build-")), "{images:?}");

    std::fs::write(context.join("page"), "another page").unwrap();
    let changed = bed.runtime.block_on(plan(&deployer, web(bed, &build))).unwrap();
    assert!(changed.to_string().contains("image"), "{changed}");
    bed.runtime.block_on(deployer.apply(changed, &mut Silent)).unwrap();

    let change = Change::Remove { app: bed.app.clone(), volumes: true };
    bed.runtime.block_on(async {
        let plan = deployer.plan(change).await.unwrap();
        deployer.apply(plan, &mut Silent).await.unwrap();
    });
    assert_eq!(bed.images(), [] as [&str; 0]);
}

fn a_broken_build_says_why(bed: &Bed) {
    let context = bed.context();
    std::fs::write(context.join("Dockerfile"), "FROM scratch\nCOPY missing /\n").unwrap();
    let app = web(bed, &ImageBuild::new(&context));
    let error = bed.runtime.block_on(plan(&bed.deployer(), app)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let said = format!("{error} {:?}", error.problems());
    assert!(said.contains("services.web.image") && said.contains("missing"), "{said}");
    assert_eq!(bed.images(), [] as [&str; 0]);
}

/// A context with a shell.
fn shell(context: &Path, dockerfile: &str) -> ImageBuild {
    std::fs::copy("/usr/bin/busybox", context.join("busybox")).unwrap();
    std::fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    ImageBuild::new(context)
}

fn secrets_are_in_no_layer(bed: &Bed) {
    if !Path::new("/usr/bin/busybox").exists() {
        assert!(std::env::var_os("CI").is_none(), "there is no busybox (busybox-static)");
        eprintln!("skipped: there is no busybox (busybox-static)");
        return;
    }
    let context = bed.context();
    let value = format!("{:016x}", fastrand::u64(..));
    let file = bed.folder.path().join("token");
    std::fs::write(&file, &value).unwrap();
    let mut build = shell(
        &context,
        "FROM scratch\nCOPY busybox /bin/busybox\n\
         RUN --mount=type=secret,id=token [\"/bin/busybox\", \"sh\", \"-c\", \
         \"/bin/busybox sha256sum < /run/secrets/token > /sum\"]\nCMD [\"/bin/busybox\"]\n",
    );
    build.secrets.insert("token".into(), BuildSecret::File(file.clone()));
    let built = bed.built(build);
    if !bed.buildkit {
        let refused = built.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
        return;
    }
    let id = built.unwrap();
    let container = bed.docker(&["create", &id]).remove(0);
    let copy = bed.folder.path().join("sum");
    bed.docker(&["cp", &format!("{container}:/sum"), copy.to_str().unwrap()]);
    let whole = bed.folder.path().join("whole.tar");
    bed.docker(&["save", "-o", whole.to_str().unwrap(), &id]);
    bed.docker(&["rm", &container]);
    let wanted = std::process::Command::new("sha256sum").arg(&file).output().unwrap().stdout;
    let sum = std::fs::read_to_string(copy).unwrap();
    assert_eq!(sum.split(' ').next(), String::from_utf8(wanted).unwrap().split(' ').next());
    let whole = std::fs::read(whole).unwrap();
    let found = whole.windows(value.len()).any(|part| part == value.as_bytes());
    assert!(!found, "the secret is in the image");
}
