//! What is built here runs in Docker, and other tools take it. The engines and the registry are
//! those of `testbed/up docker registry`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;
use std::process::Command;

use deploykit_core::model::{AppName, FileMode, ImageCopy, ImageFiles, ImageRef, ImageSpec, Owner};
use deploykit_core::{EventSender, ImageBuilder};
use deploykit_oci::{Compression, Digest, Images, Layout, RegistryClient};
use support::{config, name};

/// A server of the testbed. Under CI it has to be there.
fn server(variable: &str) -> Option<String> {
    let found = std::env::var(variable).ok();
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "{variable} is not set");
        println!("SKIPPED: {variable} is not set; eval \"$(testbed/up docker registry)\"");
    }
    found
}

/// A tool of `testbed/need`.
fn tool(name: &str) -> String {
    let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/need");
    let output = Command::new(need).arg(name).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{command:?}: {said}");
    said
}

fn docker(host: &str) -> Command {
    let mut command = Command::new("docker");
    command.env("DOCKER_HOST", host);
    command
}

/// What the program in the container does; outside it is nothing.
#[test]
fn says_what_it_finds() {
    if std::env::var_os("DEPLOYKIT_TEST_INSIDE").is_none() {
        return;
    }
    println!("USER {}", rustix::process::getuid().as_raw());
    std::fs::write("/tmp/file", "x").unwrap();
    println!("FOLDER {}", std::env::current_dir().unwrap().display());
    let certificates = std::fs::read_to_string("/etc/ssl/certs/ca-certificates.crt").unwrap();
    println!("CERTIFICATES {}", certificates.contains("BEGIN CERTIFICATE"));
    let zone = std::fs::read("/usr/share/zoneinfo/Europe/Berlin").unwrap();
    println!("ZONE {}", zone.starts_with(b"TZif"));
    let metadata = std::fs::metadata("/srv/data").unwrap();
    use std::os::unix::fs::MetadataExt;
    println!("DATA {:o} {}:{}", metadata.mode() & 0o7777, metadata.uid(), metadata.gid());
    println!("HIDDEN {}", Path::new("/srv/skipped").exists());
}

const FOUND: [&str; 6] = [
    "USER 65532",
    "FOLDER /srv",
    "CERTIFICATES true",
    "ZONE true",
    "DATA 640 65532:100",
    "HIDDEN false",
];

/// An ordinary, dynamically linked output of `cargo build`: this test.
fn files(source: &Path) -> ImageFiles {
    std::fs::create_dir_all(source).unwrap();
    std::fs::write(source.join("data"), "x").unwrap();
    std::fs::write(source.join("skipped"), "x").unwrap();
    std::fs::write(source.join(".dockerignore"), "skipped\n").unwrap();
    let mut copy = ImageCopy::new(source, "/srv");
    copy.mode = FileMode::new(0o640);
    copy.owner = Some(Owner { user: 65532, group: 100 });
    let program = Some(std::env::current_exe().unwrap());
    let mut files = ImageFiles { program, ..ImageFiles::default() };
    files.copies.push(copy);
    files.env.insert("DEPLOYKIT_TEST_INSIDE".to_owned(), "1".to_owned());
    files.cmd = ["--exact", "says_what_it_finds", "--nocapture"].map(str::to_owned).to_vec();
    files.user = Some("65532".to_owned());
    files.workdir = Some("/srv".into());
    files.certificates = true;
    files.time_zones = true;
    files.labels.insert("org.opencontainers.image.title".to_owned(), "test".to_owned());
    files
}

#[track_caller]
fn check(said: &str) {
    for found in FOUND {
        assert!(said.lines().any(|line| line.trim_end().ends_with(found)), "{found}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cargo_build_runs_in_every_engine() {
    let (Some(old), Some(new)) =
        (server("DEPLOYKIT_TEST_DOCKER"), server("DEPLOYKIT_TEST_DOCKER_NEW"))
    else {
        return;
    };
    let Some(registry) = server("DEPLOYKIT_TEST_REGISTRY") else { return };
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::open(work.path().join("store")).unwrap();
    let images = Images::new(layout, RegistryClient::new(config()));
    let app: AppName = "engine".parse().unwrap();
    let files = ImageSpec::files(files(&work.path().join("source")));

    // By an archive.
    let built = images.build(&app, &files, &EventSender::channel().0).await.unwrap();
    let digest = Digest::try_from(&built).unwrap();
    let archive = work.path().join("image.tar");
    let tag = format!("deploykit-test-engine:{}", &digest.hex()[..12]);
    let names = [deploykit_oci::Reference::parse_normalized(&tag).unwrap()];
    let file = std::fs::File::create(&archive).unwrap();
    images.layout().export_docker(&digest, &names, file).unwrap();
    run(docker(&old).arg("load").arg("-i").arg(&archive));
    check(&run(docker(&old).args(["run", "--rm", &tag])));
    run(docker(&old).args(["image", "rm", "-f", &tag]));

    // From a registry; the oldest engine takes no zstd.
    for (engine, compression) in [(&old, Compression::Gzip), (&new, Compression::Zstd)] {
        let prefix = format!("{registry}/engine-test");
        let images = images.clone().compression(compression).pushing_to(&prefix).unwrap();
        let pushed = images.build(&app, &files, &EventSender::channel().0).await.unwrap();
        let image = format!("{}@{}", pushed.source, pushed.digest);
        check(&run(docker(engine).args(["run", "--rm", &image])));
        run(docker(engine).args(["image", "rm", "-f", &image]));
        judged(&image, compression, work.path());

        // Upon that image, pulled by its digest; how it is run stays.
        let base = Some(ImageRef::new(&image).unwrap());
        let mut above = ImageFiles { base, ..ImageFiles::default() };
        std::fs::write(work.path().join("note"), "above").unwrap();
        above.copies.push(ImageCopy::new(work.path().join("note"), "/srv/note"));
        above.cmd = ["--list"].map(str::to_owned).to_vec();
        let pushed =
            images.build(&app, &ImageSpec::files(above), &EventSender::channel().0).await.unwrap();
        let image = format!("{}@{}", pushed.source, pushed.digest);
        let said = run(docker(engine).args(["run", "--rm", &image]));
        assert!(said.contains("says_what_it_finds: test"), "{said}");
        run(docker(engine).args(["image", "rm", "-f", &image]));
    }
}

/// Other tools read what we pushed.
fn judged(image: &str, compression: Compression, work: &Path) {
    let mut crane = Command::new(tool("crane"));
    crane.args(["validate", "--insecure", "--remote", image]);
    let is_zstd = compression == Compression::Zstd;
    if is_zstd {
        // It reads layers as gzip only; without them it judges the documents.
        crane.arg("--fast");
    }
    run(&mut crane);
    let remote = format!("docker://{image}");
    let said = run(Command::new(tool("skopeo")).args(["inspect", "--tls-verify=false", &remote]));
    assert!(said.contains("\"org.opencontainers.image.title\": \"test\""), "{said}");
    if is_zstd {
        // Debian's umoci knows no zstd.
        return;
    }
    let folder = tempfile::tempdir_in(work).unwrap();
    let store = folder.path().join("oci").display().to_string();
    let local = format!("oci:{store}:1");
    run(Command::new(tool("skopeo")).args([
        "copy",
        "-q",
        "--src-tls-verify=false",
        &remote,
        &local,
    ]));
    let bundle = folder.path().join("bundle").display().to_string();
    run(Command::new(tool("umoci")).args([
        "unpack",
        "--rootless",
        "--image",
        &format!("{store}:1"),
        &bundle,
    ]));
    assert!(folder.path().join("bundle/rootfs/srv/data").is_file());
}

#[tokio::test]
async fn a_tag_is_resolved_to_its_digest() {
    let Some(registry) = server("DEPLOYKIT_TEST_REGISTRY") else { return };
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::open(work.path()).unwrap();
    let client = RegistryClient::new(config());
    let built = support::image(&layout, b"resolve me");
    let tag = name(&registry, "engine-test/resolved:1");
    client.push(&layout, &built, &tag, &[]).await.unwrap();
    let images = Images::new(layout, client);
    let spec = ImageSpec::Reference(ImageRef::new(tag.to_string()).unwrap());
    let resolved =
        images.build(&"engine".parse().unwrap(), &spec, &EventSender::channel().0).await.unwrap();
    assert_eq!(resolved.digest, built.digest.to_string());
}
