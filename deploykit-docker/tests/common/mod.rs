//! What the tests on real engines share.
#![allow(dead_code, unreachable_pub, reason = "each test uses its part")]

pub mod traffic;
pub mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::SystemTime;

use deploykit_conformance::{Bed, Connected, Kit};
use deploykit_core::model::{AppName, ImageBuild, ImageRef, ImageSpec};
use deploykit_core::{Error, ErrorKind, Reconciler, Result};
use deploykit_docker::{Docker, DockerConfig, Host};
use deploykit_oci::{Layout, Recipe, Reference, RegistryClient, UnpackLimits};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// The engine that a variable names; nothing where it is not set. Under CI that is a failure.
pub fn engine(variable: &str) -> Option<Host> {
    match std::env::var(variable) {
        Ok(host) => Some(host.parse().unwrap()),
        Err(_) if std::env::var_os("CI").is_some() => {
            panic!("{variable} is not set: eval \"$(testbed/up docker)\"")
        }
        Err(_) => {
            eprintln!("skipped: {variable} is not set (eval \"$(testbed/up docker)\")");
            None
        }
    }
}

/// The agent that belongs to this version, built where it is not named.
pub fn agent() -> PathBuf {
    if let Some(path) = std::env::var_os("DEPLOYKIT_AGENT") {
        return path.into();
    }
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = root.join("testbed/agent");
    let output = std::process::Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
}

/// Runs the behaviour kit on the engine that a variable names, and looks for what it has left.
pub fn kit(variable: &'static str) -> ExitCode {
    // What is deployed is this program itself.
    if let Some(code) = deploykit_conformance::testapp::run_if_asked() {
        return code;
    }
    let Some(host) = engine(variable) else { return ExitCode::SUCCESS };
    // What a failure that was seen once leaves to be read.
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(false);
    let ours = Targets::new().with_target("deploykit", LevelFilter::DEBUG);
    tracing_subscriber::registry().with(log.with_filter(ours)).init();
    let agent = agent();
    let program = std::env::current_exe().unwrap();
    let name = program.file_name().unwrap().to_string_lossy().into_owned();
    let looked = host.clone();
    let mut kit = Kit::new(move |bed| connect(bed, host.clone(), agent.clone()))
        .image(ImageSpec::binary(&program), format!("/usr/local/bin/{name}"));
    if let Some(reference) = pushed(&program) {
        kit = kit.reference(reference);
    }
    let folder = tempfile::tempdir().unwrap();
    let code = kit.build(context(folder.path())).run();
    match left(&looked) {
        left if left.is_empty() => code,
        left => {
            eprintln!("left on the engine: {}", left.join(", "));
            ExitCode::FAILURE
        }
    }
}

/// A folder from which an image of this program is built, upon nothing.
pub fn context(folder: &Path) -> ImageBuild {
    let program = std::env::current_exe().unwrap();
    let images = tempfile::tempdir().unwrap();
    let layout = Layout::open(images.path()).unwrap();
    let image = Recipe::binary(&program).unwrap().build(&layout).unwrap();
    layout.unpack(&image.digest, &folder.join("root"), UnpackLimits::default()).unwrap();
    let name = program.file_name().unwrap().to_string_lossy();
    let dockerfile = format!(
        "FROM scratch\nCOPY root /\nARG TITLE=none\nLABEL title=$TITLE\n\
         COPY page* /srv/\nENTRYPOINT [\"/usr/local/bin/{name}\"]\n"
    );
    std::fs::write(folder.join("Dockerfile"), dockerfile).unwrap();
    std::fs::write(folder.join("page"), "a page").unwrap();
    ImageBuild::new(folder)
}

/// The test application in the registry of `DEPLOYKIT_TEST_REGISTRY`, put there once for each time
/// that it was built: tests that each run in a process of their own find it there.
pub fn pushed(program: &Path) -> Option<ImageRef> {
    let registry = std::env::var("DEPLOYKIT_TEST_REGISTRY").ok()?;
    let built = program.metadata().unwrap().modified().unwrap();
    let built = built.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let name = format!("{registry}/kit/testapp:{built:x}");
    let push = async {
        let client = RegistryClient::default();
        let to = Reference::parse(&name).unwrap();
        if client.resolve(&to).await.is_err() {
            let folder = tempfile::tempdir().unwrap();
            let layout = Layout::open(folder.path()).unwrap();
            let image = Recipe::binary(program).unwrap();
            client.build_and_push(image, &layout, &to, &[]).await.unwrap();
        }
    };
    tokio::runtime::Runtime::new().unwrap().block_on(push);
    Some(ImageRef::new(name).unwrap())
}

async fn connect(bed: Bed, host: Host, agent: PathBuf) -> Connected {
    let config = DockerConfig::new(host).agent(agent).keys(bed.folder().join("keys"));
    let docker: Docker = Docker::open(config).await?;
    Ok(Arc::new(Reconciler::new(bed.faulty(docker))))
}

/// Every container, network and volume of this process's apps. Images that were prepared and never
/// applied stay for the next apply: they are removed here.
pub fn left(host: &Host) -> Vec<String> {
    let mine = format!("kit-{:x}-", std::process::id());
    let list = |arguments: &[&str]| docker(host, arguments).unwrap();
    let mut left: Vec<String> = Vec::new();
    let format = "{{.Names}}";
    left.extend(list(&["ps", "-a", "--format", format]));
    left.extend(list(&["network", "ls", "--format", "{{.Name}}"]));
    left.extend(list(&["volume", "ls", "--format", "{{.Name}}"]));
    left.retain(|name| name.contains(&mine));
    for image in list(&["images", "--format", "{{.Repository}}:{{.Tag}}"]) {
        if image.contains(&mine) {
            // One that something runs is kept by that, which is told.
            let _ = docker(host, &["rmi", &image]);
        }
    }
    left
}

/// The names of everything of an app, images among it.
pub fn all(host: &Host, app: &AppName) -> Vec<String> {
    let ours = format!("label=io.deploykit.app={app}");
    let list = |arguments: &[&str]| docker(host, arguments).unwrap();
    let mut all = list(&["ps", "-a", "--filter", &ours, "--format", "{{.Names}}"]);
    all.extend(list(&["network", "ls", "--filter", &ours, "--format", "{{.Name}}"]));
    all.extend(list(&["volume", "ls", "--filter", &ours, "--format", "{{.Name}}"]));
    let images = list(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    all.extend(images.into_iter().filter(|image| image.contains(&format!("/{app}:"))));
    all
}

/// What the docker command prints, by lines.
pub fn docker(host: &Host, arguments: &[&str]) -> Result<Vec<String>> {
    let output = std::process::Command::new("docker")
        .args(["-H", &host.to_string()])
        .args(arguments)
        .output()
        .map_err(|e| Error::new(ErrorKind::Failed, "run docker", e.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::new(ErrorKind::Failed, "run docker", said));
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().map(str::to_owned).collect())
}
