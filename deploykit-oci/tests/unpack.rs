//! Images become folders, and hostile ones nothing outside them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use deploykit_core::{ErrorKind, Result};
use deploykit_oci::spec::{Descriptor, Execution, Image, Manifest, Platform, RootFs, media_type};
use deploykit_oci::{Digest, Layout, UnpackLimits};
use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

/// An entry: its kind, name, mode, and content or target.
type Line<'a> = (EntryType, &'a str, u32, &'a str);
use EntryType::{Char, Directory as Folder, Fifo, Link, Regular as File, Symlink};

fn layer(lines: &[Line<'_>]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (kind, name, mode, content) in lines {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        let is_link = matches!(kind, Link | Symlink);
        header.set_size(if is_link { 0 } else { content.len() as u64 });
        if is_link {
            header.as_old_mut().linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        // The crate would refuse to write some of these names.
        let long = name.len() > 100;
        if !long {
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        }
        header.set_cksum();
        let body = if is_link { "" } else { content };
        match long {
            true => archive.append_data(&mut header, name, body.as_bytes()).unwrap(),
            false => archive.append(&header, body.as_bytes()).unwrap(),
        }
    }
    archive.into_inner().unwrap()
}

fn image(layout: &Layout, layers: &[Vec<u8>]) -> Digest {
    let put = |kind: &str, bytes: &[u8]| Descriptor {
        media_type: kind.to_owned(),
        digest: layout.put(bytes).unwrap(),
        size: bytes.len() as u64,
        platform: None,
        artifact_type: None,
        annotations: BTreeMap::new(),
    };
    let config = Image {
        created: None,
        platform: Platform { architecture: "amd64".into(), os: "linux".into(), variant: None },
        config: Execution::default(),
        rootfs: RootFs {
            kind: "layers".to_owned(),
            diff_ids: layers.iter().map(|bytes| Digest::of(bytes)).collect(),
        },
        history: Vec::new(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: None,
        artifact_type: None,
        config: put(media_type::CONFIG, &serde_json::to_vec(&config).unwrap()),
        layers: layers.iter().map(|bytes| put(media_type::LAYER, bytes)).collect(),
        subject: None,
        annotations: BTreeMap::new(),
    };
    layout.put(&serde_json::to_vec(&manifest).unwrap()).unwrap()
}

fn unpack_with(layers: &[Vec<u8>], limits: UnpackLimits) -> (TempDir, Result<()>) {
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::open(work.path().join("store")).unwrap();
    let image = image(&layout, layers);
    let unpacked = layout.unpack(&image, &work.path().join("root"), limits);
    (work, unpacked)
}

fn unpack(layers: &[&[Line<'_>]]) -> (TempDir, Result<()>) {
    let layers: Vec<Vec<u8>> = layers.iter().map(|lines| layer(lines)).collect();
    unpack_with(&layers, UnpackLimits::default())
}

/// Every path below a folder.
fn paths(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            found.push(path.strip_prefix(root).unwrap().display().to_string());
            if path.symlink_metadata().unwrap().is_dir() {
                waiting.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn layers_lie_upon_each_other() {
    let (work, unpacked) = unpack(&[
        &[
            (Folder, "./", 0o755, ""),
            (Folder, "etc/", 0o755, ""),
            (File, "etc/a", 0o640, "a"),
            (File, "etc/b", 0o4755, "b"),
            (Folder, "old", 0o755, ""),
            (File, "old/x", 0o644, "x"),
            (File, "gone/deep/file", 0o644, ""),
            (Symlink, "run", 0o777, "/var/run"),
            (Folder, "var/run", 0o755, ""),
        ],
        &[
            (File, "etc/.wh.a", 0o644, ""),
            (Link, "etc/c", 0o755, "etc/b"),
            (File, "old/y", 0o644, "y"),
            (File, "old/.wh..wh..opq", 0o644, ""),
            (File, ".wh.gone", 0o644, ""),
            (File, "run/pid", 0o644, "1"),
            (Folder, "closed", 0o500, ""),
            (File, "closed/in", 0o400, "in"),
        ],
    ]);
    unpacked.unwrap();
    let root = work.path().join("root");
    let expected = [
        "closed",
        "closed/in",
        "etc",
        "etc/b",
        "etc/c",
        "old",
        "old/y",
        "run",
        "var",
        "var/run",
        "var/run/pid",
    ];
    assert_eq!(paths(&root), expected);
    let (b, c) =
        (fs::metadata(root.join("etc/b")).unwrap(), fs::metadata(root.join("etc/c")).unwrap());
    assert_eq!((b.ino(), b.mode() & 0o7777, b.mtime()), (c.ino(), 0o4755, 7));
    assert_eq!(fs::metadata(root.join("closed")).unwrap().mode() & 0o7777, 0o500);
    // So that the folder can be removed by whoever runs this.
    fs::set_permissions(root.join("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}

#[test]
fn a_link_is_replaced_and_not_written_through() {
    let (work, unpacked) = unpack(&[
        &[(File, "a", 0o644, "a"), (Link, "b", 0o644, "a"), (Symlink, "s", 0o777, "a")],
        &[(File, "b", 0o644, "new"), (File, "s", 0o644, "file")],
    ]);
    unpacked.unwrap();
    let root = work.path().join("root");
    assert_eq!(fs::read(root.join("a")).unwrap(), b"a");
    assert_eq!(fs::read(root.join("b")).unwrap(), b"new");
    assert!(root.join("s").symlink_metadata().unwrap().is_file());
}

#[test]
fn what_is_hostile_is_refused_and_nothing_is_written_outside() {
    let long = "n".repeat(300);
    let deep = "d/".repeat(2100) + "f";
    let out = "it leads out of the image, or through a file";
    let odd = "only files, folders and links are unpacked, no device or pipe";
    let cases: Vec<(Vec<Line<'_>>, &str)> = vec![
        (vec![(File, "/etc/x", 0o644, "x")], "an absolute path"),
        (vec![(File, "a/../../x", 0o644, "x")], "`..` in a path"),
        (vec![(Symlink, "a", 0o777, "../.."), (File, "a/x", 0o644, "x")], out),
        (
            vec![
                (Symlink, "a", 0o777, "b/../.."),
                (Folder, "b", 0o755, ""),
                (File, "a/x", 0o644, ""),
            ],
            out,
        ),
        (vec![(Symlink, "a", 0o777, "a"), (File, "a/x", 0o644, "x")], out),
        (vec![(File, "a", 0o644, ""), (File, "a/x", 0o644, "x")], out),
        (vec![(Link, "a", 0o644, "/etc/passwd")], "an absolute path"),
        (vec![(Link, "a", 0o644, "../../etc/passwd")], "`..` in a path"),
        (vec![(Symlink, "s", 0o777, "/etc/passwd"), (Link, "a", 0o644, "s")], out),
        (vec![(Char, "null", 0o666, "")], odd),
        (vec![(Fifo, "pipe", 0o666, "")], odd),
        (vec![(File, &long, 0o644, "x")], "the name is too long"),
        (vec![(File, &deep, 0o644, "x")], "the name is too long"),
        (vec![(File, "a", 0o644, "1"), (File, "./a", 0o644, "2")], "it comes twice"),
        (vec![(File, ".wh...", 0o644, "")], "a whiteout that hides nothing"),
        (vec![(File, ".wh.", 0o644, "")], "a whiteout that hides nothing"),
    ];
    for (lines, message) in cases {
        let (work, unpacked) = unpack(&[&lines]);
        let error = unpacked.unwrap_err();
        assert_eq!((error.kind(), error.message()), (ErrorKind::Invalid, message), "{lines:?}");
        let mut beside: Vec<_> =
            fs::read_dir(work.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        beside.sort();
        assert_eq!(beside, ["root", "store"], "{lines:?}");
    }
}

#[test]
fn an_absolute_link_is_one_within_the_image() {
    let (work, unpacked) = unpack(&[
        &[(Symlink, "a", 0o777, "/deploykit-no-such-folder")],
        &[(Folder, "deploykit-no-such-folder", 0o755, ""), (File, "a/x", 0o644, "x")],
    ]);
    unpacked.unwrap();
    assert!(work.path().join("root/deploykit-no-such-folder/x").is_file());
    assert!(!Path::new("/deploykit-no-such-folder").exists());
}

#[test]
fn bombs_end_at_the_limits() {
    let bytes = layer(&[(File, "a", 0o644, &"0".repeat(100_000))]);
    let too_much = "it unpacks to more than is allowed";
    let limits = UnpackLimits { bytes: 50_000, entries: 10 };
    let (_work, unpacked) = unpack_with(&[bytes], limits);
    assert_eq!(unpacked.unwrap_err().message(), too_much);

    let many: Vec<String> = (0..11).map(|n| n.to_string()).collect();
    let lines: Vec<Line<'_>> = many.iter().map(|n| (File, n.as_str(), 0o644, "")).collect();
    let (_work, unpacked) =
        unpack_with(&[layer(&lines)], UnpackLimits { bytes: 1 << 20, entries: 10 });
    assert_eq!(unpacked.unwrap_err().message(), "more entries than allowed");

    // A name that never ends, which a reader would have to hold in memory.
    let name = "n".repeat(3 << 20);
    let endless = layer(&[(EntryType::GNULongName, "././@LongLink", 0o644, &name)]);
    let (_work, unpacked) = unpack_with(&[endless], UnpackLimits::default());
    assert_eq!(unpacked.unwrap_err().message(), too_much);
}

#[test]
fn a_folder_in_use_and_a_swapped_layer_are_refused() {
    let work = tempfile::tempdir().unwrap();
    let layout = Layout::open(work.path().join("store")).unwrap();
    let digest = image(&layout, &[layer(&[(File, "a", 0o644, "a")])]);
    let full = layout.unpack(&digest, work.path(), UnpackLimits::default()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::AlreadyExists);

    let manifest = layout.manifest(&digest).unwrap();
    let other = layer(&[(File, "a", 0o644, "b")]);
    let mut swapped = manifest.clone();
    swapped.layers[0].digest = layout.put(&other).unwrap();
    let swapped = layout.put(&serde_json::to_vec(&swapped).unwrap()).unwrap();
    let target = work.path().join("root");
    let error = layout.unpack(&swapped, &target, UnpackLimits::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
