//! Images are built, the same from the same input, and taken by the tools that others use.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use deploykit_core::ErrorKind;
use deploykit_oci::spec::{Descriptor, Platform};
use deploykit_oci::{Compression, CopyOptions, DockerIgnore, Layout, Recipe, join_platforms};
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn amd64() -> Platform {
    Platform { architecture: "amd64".into(), os: "linux".into(), variant: None }
}

fn write(root: &Path, name: &str, content: &[u8]) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn scratch(source: &Path) -> Recipe {
    Recipe::scratch(amd64()).epoch(1_700_000_000).copy(source, "/srv").unwrap()
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

/// The entries of an image's layers: the path, and mode, owner, time and content.
type Entries = BTreeMap<String, (u32, u64, u64, u64, Vec<u8>)>;

fn entries(layout: &Layout, image: &Descriptor) -> Entries {
    let manifest = layout.manifest(&image.digest).unwrap();
    let mut entries = BTreeMap::new();
    for layer in &manifest.layers {
        for entry in tar::Archive::new(layout.layer(layer).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let header = entry.header().clone();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let facts = (
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                header.mtime().unwrap(),
                content,
            );
            entries.insert(path, facts);
        }
    }
    entries
}

#[test]
fn the_same_files_are_the_same_image_wherever_and_whenever() {
    let (one, two) = (folder(), folder());
    let names = ["a/x", "a-b", "b/c/d", "z"];
    for name in names {
        write(one.path(), name, name.as_bytes());
    }
    symlink("a/x", one.path().join("link")).unwrap();
    symlink("a/x", two.path().join("link")).unwrap();
    for name in names.iter().rev() {
        write(two.path(), name, name.as_bytes());
        let path = two.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1)).unwrap();
    }
    for compression in [Compression::Gzip, Compression::Zstd] {
        let digests = [one.path(), two.path()].map(|source| {
            let store = folder();
            let mut recipe = scratch(source);
            recipe.compression = compression;
            recipe.build(&Layout::open(store.path()).unwrap()).unwrap().digest
        });
        assert_eq!(digests[0], digests[1], "{compression:?}");
    }
}

#[test]
fn modes_owners_and_times_are_what_was_asked_for() {
    let (source, store) = (folder(), folder());
    write(source.path(), "run", b"#!");
    write(source.path(), "skip/me", b"x");
    write(source.path(), "skip/keep", b"y");
    fs::set_permissions(source.path().join("run"), fs::Permissions::from_mode(0o700)).unwrap();
    let ignore = DockerIgnore::parse("skip\n!skip/keep\n").unwrap();
    let options = CopyOptions { owner: (7, 8), mode: None, ignore };
    let layout = Layout::open(store.path()).unwrap();
    let recipe = Recipe::scratch(amd64()).epoch(42);
    let recipe = recipe.copy_with(source.path(), "/srv", &options).unwrap();
    let recipe = recipe.file("/etc/x", 0o400, (1, 2), *b"secret-free").unwrap();
    let image = recipe.temporary_folder().unwrap().build(&layout).unwrap();
    let entries = entries(&layout, &image);
    let names: Vec<&str> = entries.keys().map(String::as_str).collect();
    assert_eq!(names, ["etc/", "etc/x", "srv/", "srv/run", "srv/skip/", "srv/skip/keep", "tmp/"]);
    assert_eq!(entries["srv/run"], (0o755, 7, 8, 42, b"#!".to_vec()));
    assert_eq!(entries["etc/x"], (0o400, 1, 2, 42, b"secret-free".to_vec()));
    assert_eq!(entries["tmp/"].0, 0o1777);
}

#[test]
fn a_changed_file_of_a_big_tree_changes_one_layer_and_the_others_are_not_read() {
    let (source, store) = (folder(), folder());
    for number in 0..50 {
        write(source.path(), &format!("{number}"), &noise(number, 1 << 20));
    }
    let layout = Layout::open(store.path()).unwrap();
    let layers = |recipe: &Recipe| {
        let image = recipe.build(&layout).unwrap();
        let manifest = layout.manifest(&image.digest).unwrap();
        manifest.layers.into_iter().map(|layer| layer.digest).collect::<Vec<_>>()
    };
    // What has just been written is not trusted to stay: wait until it may be.
    std::thread::sleep(Duration::from_millis(150));
    let recipe = scratch(source.path());
    let before = layers(&recipe);
    assert!(before.len() > 1, "{before:?}");

    write(source.path(), "5", b"changed");
    let changed = scratch(source.path());
    let after = layers(&changed);
    let kept = after.iter().filter(|layer| before.contains(layer)).count();
    assert_eq!((after.len(), kept), (before.len(), before.len() - 1));

    // With every file gone, only what is remembered can make the image.
    for number in 0..50 {
        fs::remove_file(source.path().join(format!("{number}"))).unwrap();
    }
    assert_eq!(layers(&recipe), before);
}

#[test]
fn a_file_that_changes_meanwhile_or_goes_is_refused() {
    let (source, store) = (folder(), folder());
    let layout = Layout::open(store.path()).unwrap();
    write(source.path(), "a", b"one");
    let recipe = scratch(source.path());
    write(source.path(), "a", b"three");
    let error = recipe.build(&layout).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.message(), "the file changed while it was read; build again when it rests");
    fs::remove_file(source.path().join("a")).unwrap();
    assert_eq!(recipe.build(&layout).unwrap_err().kind(), ErrorKind::NotFound);
    let missing = Recipe::scratch(amd64()).copy(source.path().join("none"), "/x").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(store.path().join(".work")).unwrap().count(), 0);
}

#[test]
fn a_program_comes_with_its_loader_and_libraries() {
    let store = folder();
    let layout = Layout::open(store.path()).unwrap();
    let program = std::env::current_exe().unwrap();
    let recipe = Recipe::binary(&program).unwrap();
    let image = recipe.build(&layout).unwrap();
    let entries = entries(&layout, &image);
    let name = program.file_name().unwrap().to_str().unwrap();
    assert_eq!(recipe.execution.entrypoint, [format!("/usr/local/bin/{name}")]);
    assert_eq!(entries[&format!("usr/local/bin/{name}")].4, fs::read(&program).unwrap());
    assert!(entries.keys().any(|path| path.ends_with("/libc.so.6")), "{:?}", entries.keys());
    assert!(entries.keys().any(|path| path.contains("/ld-linux")), "{:?}", entries.keys());
}

#[test]
fn missing_libraries_are_named() {
    let folder = folder();
    let mut bytes = fs::read(std::env::current_exe().unwrap()).unwrap();
    let name = b"libc.so.6\0";
    for at in 0..bytes.len() - name.len() {
        if bytes[at..].starts_with(name) {
            bytes[at..at + name.len()].copy_from_slice(b"libx.so.6\0");
        }
    }
    write(folder.path(), "program", &bytes);
    let error = Recipe::binary(folder.path().join("program")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.message().starts_with("libraries are missing: libx.so.6 (for "), "{error}");
    write(folder.path(), "script", b"#!/bin/sh\n");
    let error = Recipe::binary(folder.path().join("script")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn an_image_lies_upon_a_base_and_platforms_are_joined() {
    let (source, store) = (folder(), folder());
    write(source.path(), "a", b"base");
    let layout = Layout::open(store.path()).unwrap();
    let mut base = scratch(source.path());
    base.execution.env = vec!["A=1".to_owned()];
    let base = base.build(&layout).unwrap();
    let upon = Recipe::upon(&layout, &base.digest, amd64()).unwrap();
    let upon = upon.file("/b", 0o644, (0, 0), *b"upon").unwrap().build(&layout).unwrap();
    let manifest = layout.manifest(&upon.digest).unwrap();
    let image = layout.image(&manifest.config.digest).unwrap();
    assert_eq!((manifest.layers.len(), image.rootfs.diff_ids.len()), (2, 2));
    assert_eq!(image.config.env, ["A=1"]);

    let arm64 = Platform { architecture: "arm64".into(), ..amd64() };
    let other = Recipe::upon(&layout, &base.digest, arm64.clone()).unwrap_err();
    assert_eq!(other.message(), "it is of another platform");
    let unknown = deploykit_oci::Digest::of(b"nothing");
    let error = Recipe::upon(&layout, &unknown, amd64()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let arm = Recipe::scratch(arm64).epoch(0).copy(source.path(), "/").unwrap();
    let arm = arm.build(&layout).unwrap();
    let both = join_platforms(&layout, &[upon.clone(), arm.clone()]).unwrap();
    assert_eq!(both, join_platforms(&layout, &[arm.clone(), upon]).unwrap());
    let twice = join_platforms(&layout, &[arm.clone(), arm]).unwrap_err();
    assert_eq!(twice.message(), "each image is of a platform of its own");
}

#[test]
fn a_damaged_blob_is_never_taken_for_whole() {
    let store = folder();
    let layout = Layout::open(store.path()).unwrap();
    let digest = layout.put(b"content").unwrap();
    let path = store.path().join("blobs/sha256").join(digest.hex());
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"Content").unwrap();
    assert_eq!(layout.read(&digest).unwrap_err().kind(), ErrorKind::Corrupt);
    fs::write(store.path().join("oci-layout"), r#"{"imageLayoutVersion":"9"}"#).unwrap();
    assert_eq!(Layout::open(store.path()).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_layer_of_several_frames_is_read_whole() {
    let (source, store) = (folder(), folder());
    // Frames end within the second file, and at no end of an entry.
    let large = [noise(1, 5 << 20), vec![b'x'; 5 << 20]].concat();
    write(source.path(), "a", b"small");
    write(source.path(), "b", &large);
    write(source.path(), "c", b"last");
    let layout = Layout::open(store.path()).unwrap();
    let mut recipe = scratch(source.path());
    recipe.compression = Compression::Zstd;
    let entries = entries(&layout, &recipe.build(&layout).unwrap());
    let contents: Vec<&[u8]> =
        ["srv/a", "srv/b", "srv/c"].iter().map(|path| entries[*path].4.as_slice()).collect();
    assert!(contents == [b"small".as_slice(), &large, b"last"]);
}

#[test]
fn a_blob_that_was_cut_short_is_built_again() {
    let (source, store) = (folder(), folder());
    write(source.path(), "a", &noise(1, 10_000));
    std::thread::sleep(Duration::from_millis(150));
    let layout = Layout::open(store.path()).unwrap();
    let image = scratch(source.path()).build(&layout).unwrap();
    let layer = layout.manifest(&image.digest).unwrap().layers.remove(0);
    for blob in [&layer, &image] {
        assert!(layout.contains(blob));
        // As a crash of the machine may leave it.
        let path = store.path().join("blobs/sha256").join(blob.digest.hex());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(100).unwrap();
        assert!(!layout.contains(blob));
    }
    assert_eq!(layout.tag("one", &image).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(scratch(source.path()).build(&layout).unwrap(), image);
    layout.tag("one", &image).unwrap();
    assert_eq!(entries(&layout, &image)["srv/a"].4, noise(1, 10_000));
}

/// Run by the next test in processes of their own: builds and tags into the store that it names.
#[test]
fn one_of_two_builders() {
    let Ok(work) = std::env::var("BUILDER_WORK") else { return };
    let number = std::env::var("BUILDER_NUMBER").unwrap();
    let layout = Layout::open(Path::new(&work).join("store")).unwrap();
    for round in 0..20 {
        let image = scratch(&Path::new(&work).join("source")).build(&layout).unwrap();
        layout.tag(&format!("{number}-{round}"), &image).unwrap();
    }
}

#[test]
fn two_processes_build_into_one_store() {
    let work = folder();
    for number in 0..20 {
        write(&work.path().join("source"), &format!("{number}"), &noise(number, 10_000));
    }
    let start = |number: &str| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "one_of_two_builders"]);
        command.env("BUILDER_WORK", work.path()).env("BUILDER_NUMBER", number);
        command.spawn().unwrap()
    };
    let builders = [start("a"), start("b")];
    for mut builder in builders {
        assert!(builder.wait().unwrap().success());
    }
    let layout = Layout::open(work.path().join("store")).unwrap();
    let tags = layout.tags().unwrap();
    assert_eq!(tags.len(), 40);
    assert!(tags.iter().all(|(_, image)| image.digest == tags[0].1.digest));
    assert_eq!(entries(&layout, &tags[0].1).len(), 21);
}

/// The tool's name, where it is installed. Under CI it has to be.
fn tool(name: &'static str) -> Option<&'static str> {
    if Command::new(name).arg("--version").output().is_ok() {
        return Some(name);
    }
    assert!(std::env::var("CI").is_err(), "{name} is not installed");
    eprintln!("skipped: {name} is not installed");
    None
}

fn output_of(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn skopeo_reads_our_images() {
    let Some(skopeo) = tool("skopeo") else { return };
    let (source, store) = (folder(), folder());
    write(source.path(), "a", b"content");
    let layout = Layout::open(store.path()).unwrap();
    let mut recipe = scratch(source.path());
    recipe.execution.labels.insert("a".to_owned(), "b".to_owned());
    let image = recipe.build(&layout).unwrap();
    layout.tag("one", &image).unwrap();
    let name = format!("oci:{}:one", store.path().display());
    let seen = output_of(Command::new(skopeo).args(["inspect", &name]));
    assert!(seen.contains(image.digest.as_str()), "{seen}");
    assert!(seen.contains("\"Created\": \"2023-11-14T22:13:20Z\""), "{seen}");
    assert!(seen.contains("\"a\": \"b\""), "{seen}");
}

#[test]
fn umoci_unpacks_our_images() {
    let Some(umoci) = tool("umoci") else { return };
    let (source, store, bundle) = (folder(), folder(), folder());
    let long = format!("{}/{}", "d".repeat(90), "f".repeat(200));
    write(source.path(), &long, b"long");
    symlink(format!("../{}", "t".repeat(150)), source.path().join("link")).unwrap();
    let layout = Layout::open(store.path()).unwrap();
    let image = scratch(source.path()).build(&layout).unwrap();
    layout.tag("one", &image).unwrap();
    let name = format!("{}:one", store.path().display());
    let target = bundle.path().join("bundle");
    let mut command = Command::new(umoci);
    command.args(["unpack", "--rootless", "--image", &name]).arg(&target);
    output_of(&mut command);
    let root = target.join("rootfs/srv");
    assert_eq!(fs::read(root.join(&long)).unwrap(), b"long");
    assert_eq!(fs::read_link(root.join("link")).unwrap().as_os_str().len(), 153);
}

#[test]
fn hard_links_and_attributes_go_there_and_come_back() {
    use std::os::unix::fs::MetadataExt;
    let (source, store, out) = (folder(), folder(), folder());
    write(source.path(), "b/first", b"content");
    fs::hard_link(source.path().join("b/first"), source.path().join("a")).unwrap();
    write(source.path(), "c", b"other");
    let set = |name: &str, value: &[u8]| {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(source.path().join("c"), name, value, flags)
    };
    let has_attributes = set("user.deploykit", b"x =y").is_ok();
    // cap_net_bind_service=ep; only root may set it.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let has_capability = set("security.capability", &capability).is_ok();
    let layout = Layout::open(store.path()).unwrap();
    let image = scratch(source.path()).build(&layout).unwrap();
    let target = out.path().join("root");
    layout.unpack(&image.digest, &target, deploykit_oci::UnpackLimits::default()).unwrap();
    let inode = |name: &str| fs::metadata(target.join("srv").join(name)).unwrap().ino();
    assert_eq!(inode("a"), inode("b/first"));
    assert_ne!(inode("a"), inode("c"));
    assert_eq!(fs::read(target.join("srv/b/first")).unwrap(), b"content");
    let get = |name: &str| {
        let mut value = Vec::with_capacity(100);
        let path = target.join("srv/c");
        rustix::fs::getxattr(path, name, rustix::buffer::spare_capacity(&mut value)).unwrap();
        value
    };
    if has_attributes {
        assert_eq!(get("user.deploykit"), b"x =y");
    }
    if has_capability {
        assert_eq!(get("security.capability"), capability);
    }
}
