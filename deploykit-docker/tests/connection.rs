//! The ways to reach an engine: TLS, the docker command's contexts, ssh, and a connection that
//! breaks.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use common::wire::Socket;
use deploykit_conformance::{apps, testapp};
use deploykit_core::memory::dial;
use deploykit_core::model::{App, AppName, ImageSpec};
use deploykit_core::{
    Change, Deployer, ErrorKind, ExecOutput, ExecRequest, Exit, LogQuery, Silent,
};
use deploykit_docker::{DockerConfig, Host};
use futures_util::{StreamExt as _, TryStreamExt as _};
use libtest_mimic::{Arguments, Trial};

/// The variable with the folder of this run, set for the process that runs the tests: it has the
/// docker command's configuration and an `ssh` of its own in its environment.
const FOLDER: &str = "DEPLOYKIT_CONNECTION_FOLDER";
/// How long something is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    // What is deployed is this program itself.
    if let Some(code) = testapp::run_if_asked() {
        return code;
    }
    let arguments = Arguments::from_args();
    let Some(host) = common::engine("DEPLOYKIT_TEST_DOCKER") else { return ExitCode::SUCCESS };
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return again(&host) };
    let trial = |name: &str, run: fn(&Bed)| {
        let bed = Bed { host: host.clone(), folder: folder.clone(), name: name[..3].to_owned() };
        Trial::test(name, move || {
            run(&bed);
            Ok(())
        })
    };
    let trials = vec![
        trial("tls", tls),
        trial("tls_of_strangers_is_refused", tls_of_strangers),
        trial("contexts", contexts),
        trial("ssh", ssh),
        trial("output_goes_on_where_it_broke_off", output_goes_on),
        trial("an_agent_is_small", an_agent_is_small),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Runs the tests in a process that finds contexts and `ssh` in a folder of its own.
fn again(host: &Host) -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("bin");
    std::fs::create_dir(&programs).unwrap();
    let ssh = programs.join("ssh");
    let config = folder.path().join("ssh_config");
    let real = which("ssh");
    let script = format!("#!/bin/sh\nexec {real} -F {} \"$@\"\n", config.display());
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = std::env::var("PATH").unwrap();
    let code = Command::new(std::env::current_exe().unwrap())
        .args(std::env::args().skip(1))
        .env(FOLDER, folder.path())
        .env("PATH", format!("{}:{path}", programs.display()))
        .env("DOCKER_CONFIG", folder.path().join("docker"))
        .env("DEPLOYKIT_TEST_DOCKER", host.to_string())
        .env_remove("DOCKER_HOST")
        .status()
        .unwrap();
    if code.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn which(program: &str) -> String {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap();
    String::from_utf8(found.stdout).unwrap().trim().to_owned()
}

struct Bed {
    host: Host,
    folder: PathBuf,
    name: String,
}

impl Bed {
    fn app(&self) -> AppName {
        AppName::new(format!("kit-{:x}-{}", std::process::id(), self.name)).unwrap()
    }

    fn config(&self, config: DockerConfig) -> DockerConfig {
        config.agent(common::agent()).keys(self.folder.join("keys"))
    }

    /// Deploys over a connection, talks to what was deployed, and removes it: ordinary calls,
    /// streams, and connections that become something else.
    fn works(&self, config: DockerConfig) {
        tokio::runtime::Runtime::new().unwrap().block_on(async {
            let backend = deploykit_docker::open(self.config(config)).await.unwrap();
            let deployer = Deployer::new(Arc::new(backend));
            let app = self.app();
            let image = ImageSpec::binary(std::env::current_exe().unwrap());
            let web = apps::service("web", &image, "1").env(dial::PRINT, "it is here");
            up(&deployer, App::build(app.as_str()).service(web).validate().unwrap()).await;
            let seen = deployer.status(&app).await.unwrap().observation;
            assert!(seen.instances[0].ready, "{seen:?}");

            let id = &seen.instances[0].id;
            let program = std::env::current_exe().unwrap();
            let name = program.file_name().unwrap().to_string_lossy();
            let program = format!("/usr/local/bin/{name}");
            let mut cat = ExecRequest::new([&program, testapp::WORD, "exec", "cat"]);
            cat.stdin = vec![b'x'; 300_000];
            let said = deployer.exec(&app, id, cat).await.unwrap();
            let said: Vec<ExecOutput> = said.try_collect().await.unwrap();
            let bytes = |output: &ExecOutput| match output {
                ExecOutput::Output(_, bytes) => bytes.len(),
                ExecOutput::Exit(_) => 0,
            };
            assert_eq!(said.iter().map(bytes).sum::<usize>(), 300_000);
            assert_eq!(said.last(), Some(&ExecOutput::Exit(Exit::Code(0))));

            let lines = deployer.logs(&app, &LogQuery::default()).await.unwrap();
            let lines: Vec<_> = lines.try_collect().await.unwrap();
            assert!(lines.iter().any(|line| line.line == "it is here"), "{lines:?}");
            down(&deployer, &app).await;
        });
        assert_eq!(common::all(&self.host, &self.app()), [] as [&str; 0]);
    }
}

async fn up(deployer: &Deployer, app: App) {
    let ready = deployer.prepare(app).await.unwrap();
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    deployer.apply(plan, &mut Silent).await.unwrap();
}

async fn down(deployer: &Deployer, app: &AppName) {
    let remove = Change::Remove { app: app.clone(), volumes: true };
    let plan = deployer.plan(remove).await.unwrap();
    deployer.apply(plan, &mut Silent).await.unwrap();
}

/// The engine's address with TLS, and the folder with what it wants to see.
fn with_tls() -> Option<(String, PathBuf)> {
    let address = std::env::var("DEPLOYKIT_TEST_DOCKER_TLS");
    let folder = std::env::var("DEPLOYKIT_TEST_DOCKER_CERTIFICATES");
    match (address, folder) {
        (Ok(address), Ok(folder)) => Some((address, folder.into())),
        _ => {
            assert!(std::env::var_os("CI").is_none(), "DEPLOYKIT_TEST_DOCKER_TLS is not set");
            eprintln!("skipped: DEPLOYKIT_TEST_DOCKER_TLS is not set (testbed/up docker)");
            None
        }
    }
}

/// Makes a context as people do.
fn context(name: &str, address: &str, files: &[(&str, &Path)]) {
    let mut docker = format!("host=tcp://{address}");
    for (key, path) in files {
        write!(docker, ",{key}={}", path.display()).unwrap();
    }
    let mut create = Command::new("docker");
    let made = create.args(["context", "create", name, "--docker", &docker]).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

fn tls(bed: &Bed) {
    let Some((address, files)) = with_tls() else { return };
    let (ca, cert, key) = (files.join("ca.pem"), files.join("cert.pem"), files.join("key.pem"));
    context("secure", &address, &[("ca", &ca), ("cert", &cert), ("key", &key)]);
    bed.works(DockerConfig::from_url("docker://context/secure").unwrap());
}

fn tls_of_strangers(bed: &Bed) {
    let Some((address, files)) = with_tls() else { return };
    let ca = files.join("ca.pem");
    // Without our certificate, and with an authority that knows nothing of the engine's.
    context("nobody", &address, &[("ca", &ca)]);
    let other = bed.folder.join("other-ca.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"])
        .args(["-subj", "/CN=other", "-keyout", "/dev/null", "-out"])
        .arg(&other)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    context("stranger", &address, &[("ca", &other)]);
    for name in ["nobody", "stranger"] {
        let config = DockerConfig::from_url(&format!("docker://context/{name}")).unwrap();
        let refused = tokio::runtime::Runtime::new()
            .unwrap()
            .block_on(deploykit_docker::open(bed.config(config)))
            .err()
            .unwrap();
        assert!(refused.to_string().contains(&address), "it says where: {refused}");
        let said = refused.to_string().to_lowercase();
        assert!(said.contains("certificate"), "{name}: it says why: {refused}");
    }
}

fn contexts(bed: &Bed) {
    let socket = bed.host.to_string();
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    docker(&["context", "create", "mine", "--docker", &format!("host={socket}")]);
    let missing = DockerConfig::from_url("docker://context/nobodys").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(DockerConfig::from_url("docker://context/mine").unwrap().host, bed.host);
    docker(&["context", "use", "mine"]);
    let current = DockerConfig::from_url("docker://").unwrap();
    docker(&["context", "use", "default"]);
    assert_eq!(current.host, bed.host);
    bed.works(current);
}

/// A server of ssh, ended when dropped.
struct Sshd(std::process::Child);

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ssh(bed: &Bed) {
    let Ok(sshd) = std::env::var("DEPLOYKIT_TEST_SSHD") else {
        assert!(std::env::var_os("CI").is_none(), "DEPLOYKIT_TEST_SSHD is not set");
        eprintln!("skipped: DEPLOYKIT_TEST_SSHD is not set (testbed/need sshd)");
        return;
    };
    let folder = bed.folder.join("sshd");
    std::fs::create_dir(&folder).unwrap();
    std::fs::create_dir_all("/run/sshd").unwrap();
    for key in ["host", "user"] {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(folder.join(key))
            .status();
        assert!(made.unwrap().success());
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let at = |name: &str| folder.join(name).display().to_string();
    let config = format!(
        "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\n\
         PidFile none\nPasswordAuthentication no\nPermitRootLogin yes\nUsePAM no\n\
         SetEnv DOCKER_HOST={} PATH={}\n",
        at("host"),
        at("user.pub"),
        bed.host,
        std::env::var("PATH").unwrap(),
    );
    std::fs::write(folder.join("config"), config).unwrap();
    let client = format!(
        "Host *\n  IdentityFile {}\n  IdentitiesOnly yes\n  UserKnownHostsFile {}\n  \
         StrictHostKeyChecking accept-new\n  LogLevel ERROR\n",
        at("user"),
        at("known_hosts"),
    );
    std::fs::write(bed.folder.join("ssh_config"), client).unwrap();
    let log = std::fs::File::create(folder.join("log")).unwrap();
    let _sshd = Sshd(
        Command::new(sshd)
            .args(["-D", "-e", "-f", &at("config")])
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap(),
    );
    let began = std::time::Instant::now();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        let said = std::fs::read_to_string(folder.join("log")).unwrap();
        assert!(began.elapsed() < PATIENCE, "sshd does not start: {said}");
        std::thread::sleep(Duration::from_millis(50));
    }
    let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let url = format!("docker://ssh/{}@127.0.0.1:{port}", user.trim());
    bed.works(DockerConfig::from_url(&url).unwrap());
}

fn output_goes_on(bed: &Bed) {
    let Host::Unix(engine) = &bed.host else { panic!("{} is no socket", bed.host) };
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let socket = Socket::before(engine, bed.folder.join("engine.sock"));
        let config = bed.config(DockerConfig::new(Host::Unix(socket.path.clone())));
        let deployer = Deployer::new(Arc::new(deploykit_docker::open(config).await.unwrap()));
        let app = bed.app();
        let image = ImageSpec::binary(std::env::current_exe().unwrap());
        let web = apps::service("web", &image, "1").env(dial::PRINT, "it is here");
        up(&deployer, App::build(app.as_str()).service(web).validate().unwrap()).await;
        let query = LogQuery { follow: true, ..LogQuery::default() };
        let mut lines = deployer.logs(&app, &query).await.unwrap();
        let id = deployer.status(&app).await.unwrap().observation.instances[0].id.clone();
        let container = format!("{app}.{id}");
        let docker = |arguments: &[&str]| common::docker(&bed.host, arguments).unwrap();
        let mut told = Vec::new();
        for run in 1..=3 {
            // One line of it for each run, whatever broke in between.
            let until = async {
                while told.iter().filter(|line| **line == "it is here").count() < run {
                    told.push(lines.next().await.unwrap().unwrap().line);
                }
            };
            tokio::time::timeout(PATIENCE, until).await.expect("the line is told");
            socket.cut();
            docker(&["restart", "-t", "1", &container]);
        }
        let until = async {
            while told.iter().filter(|line| **line == "it is here").count() < 4 {
                told.push(lines.next().await.unwrap().unwrap().line);
            }
        };
        tokio::time::timeout(PATIENCE, until).await.expect("the last line is told");
        drop(lines);
        let all = deployer.logs(&app, &LogQuery::default()).await.unwrap();
        let all: Vec<String> = all.map_ok(|line| line.line).try_collect().await.unwrap();
        assert_eq!(all[..told.len()], told[..], "each once, none left out");
        down(&deployer, &app).await;
    });
}

/// What goes into every app's containers.
fn an_agent_is_small(_: &Bed) {
    let agent = common::agent();
    let size = agent.metadata().unwrap().len();
    eprintln!("the agent has {size} bytes");
    assert!(size < 4 << 20, "{} has {size} bytes, more than 4 MiB", agent.display());
}
