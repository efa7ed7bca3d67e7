//! Docker archives, both ways.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::Write;
use std::process::Command;

use deploykit_core::ErrorKind;
use deploykit_oci::spec::{Descriptor, Platform};
use deploykit_oci::{Compression, Layout, Recipe, Reference};
use tempfile::TempDir;

fn store() -> (TempDir, Layout) {
    let folder = tempfile::tempdir().unwrap();
    let layout = Layout::open(folder.path()).unwrap();
    (folder, layout)
}

fn image(layout: &Layout, compression: Compression) -> Descriptor {
    let platform = Platform { architecture: "amd64".into(), os: "linux".into(), variant: None };
    let mut recipe = Recipe::scratch(platform).epoch(0);
    recipe.compression = compression;
    recipe.file("/a", 0o644, (0, 0), *b"content").unwrap().build(layout).unwrap()
}

fn name() -> Reference {
    Reference::parse_normalized("team/app:1").unwrap()
}

#[test]
fn what_is_written_is_read_again() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let ((_one, from), (_two, to)) = (store(), store());
        let built = image(&from, compression);
        let mut archive = Vec::new();
        from.export_docker(&built.digest, &[name()], &mut archive).unwrap();
        let taken = to.import_docker(archive.as_slice()).unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].0, ["team/app:1"]);
        let config = |layout: &Layout, image: &Descriptor| {
            layout.manifest(&image.digest).unwrap().config.digest
        };
        assert_eq!(config(&from, &built), config(&to, &taken[0].1));
        let mut again = Vec::new();
        to.export_docker(&taken[0].1.digest, &[name()], &mut again).unwrap();
        assert!(archive == again);
    }
}

#[test]
fn skopeo_takes_our_archive_and_we_take_its() {
    if Command::new("skopeo").arg("--version").output().is_err() {
        assert!(std::env::var("CI").is_err(), "skopeo is not installed");
        eprintln!("skipped: skopeo is not installed");
        return;
    }
    let (folder, layout) = store();
    let built = image(&layout, Compression::Gzip);
    let ours = folder.path().join("ours.tar");
    let file = fs::File::create(&ours).unwrap();
    layout.export_docker(&built.digest, &[name()], file).unwrap();
    let theirs = folder.path().join("theirs.tar");
    let copied = Command::new("skopeo")
        .args(["copy", "--insecure-policy", &format!("docker-archive:{}", ours.display())])
        .arg(format!("docker-archive:{}:team/app:1", theirs.display()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    let (_other, to) = store();
    let taken = to.import_docker(fs::File::open(&theirs).unwrap()).unwrap();
    let diff_ids = |layout: &Layout, image: &Descriptor| {
        let config = layout.manifest(&image.digest).unwrap().config.digest;
        layout.image(&config).unwrap().rootfs.diff_ids
    };
    assert_eq!(diff_ids(&layout, &built), diff_ids(&to, &taken[0].1));
    assert_eq!(taken[0].0.len(), 1);
}

#[test]
fn a_layer_with_something_behind_it_is_damaged() {
    for compression in [Compression::Gzip, Compression::Zstd] {
        let (_folder, layout) = store();
        let built = image(&layout, compression);
        let layer = layout.manifest(&built.digest).unwrap().layers[0].clone();
        let path = layout.path().join("blobs/sha256").join(layer.digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        // A second, empty stream: the content is the same, the blob is not.
        match compression {
            Compression::Gzip => {
                let more = flate2::write::GzEncoder::new(&mut bytes, Default::default());
                more.finish().unwrap();
            }
            Compression::Zstd => bytes.extend(zstd::encode_all(&b""[..], 1).unwrap()),
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let error = layout.export_docker(&built.digest, &[], Vec::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    }
}

#[test]
fn hostile_archives_are_refused() {
    let entry = |kind: tar::EntryType, name: &str, content: &[u8]| {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        archive.append_data(&mut header, name, content).unwrap();
        archive.into_inner().unwrap()
    };
    let cases = [
        (Vec::new(), "it names a file that it doesn't have"),
        (
            entry(tar::EntryType::Regular, "manifest.json", b"{}"),
            "manifest.json cannot be understood",
        ),
        (
            entry(
                tar::EntryType::Regular,
                "manifest.json",
                br#"[{"Config": "../../etc/passwd", "Layers": []}]"#,
            ),
            "it names a file that it doesn't have",
        ),
        (
            entry(tar::EntryType::Char, "device", b""),
            "it has something else than files, folders and links",
        ),
    ];
    for (archive, message) in cases {
        let (_folder, layout) = store();
        let error = layout.import_docker(archive.as_slice()).unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, message));
    }
    let (_folder, layout) = store();
    let mut half = Vec::new();
    half.write_all(&entry(tar::EntryType::Regular, "a", &[7; 5000])).unwrap();
    half.truncate(3000);
    assert!(layout.import_docker(half.as_slice()).is_err());
}
