//! A full disk and a folder that cannot be written to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::*;
use deploykit_core::{ErrorKind, EventSender, Expected, Runtime as _};
use deploykit_local::{Lifetime, Local, LocalConfig};

/// A small file system of its own.
struct Mounted(PathBuf);

impl Mounted {
    /// Nothing where mounting is not permitted; under CI that is a failure.
    fn new(path: &Path) -> Option<Self> {
        std::fs::create_dir(path).unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs"], path);
        if !mounted && std::env::var_os("CI").is_none() {
            println!("skipped: mounting a file system is not permitted to this user");
            return None;
        }
        assert!(mounted, "CI must be able to mount a file system");
        Some(Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    Command::new("mount").args(arguments).arg(path).output().is_ok_and(|o| o.status.success())
}

#[tokio::test]
async fn a_full_disk_is_told_and_nothing_of_the_call_has_happened() {
    let bed = Bed::new(Lifetime::Program);
    let Some(mounted) = Mounted::new(&bed.folder()) else { return };
    let local = bed.open().await;
    let lease = lease(&local).await;
    let version = local.state().put(&lease.fence, "revision", "1", Expected::Absent).await.unwrap();
    let filler = mounted.0.join("volumes");
    let _ = std::fs::write(&filler, vec![7; 4 << 20]);

    let big = "x".repeat(64 << 10);
    let full = local.state().put(&lease.fence, "revision", &big, Expected::Version(version)).await;
    let full = full.unwrap_err();
    assert_eq!((full.kind(), full.is_retryable()), (ErrorKind::Unavailable, true), "{full}");
    assert_eq!(full.message(), "no space is left; free some and run it again");
    let image = deploykit_core::model::ImageSpec::binary("/proc/self/exe");
    let full = local.images().build(&app(), &image, &EventSender::channel().0).await.unwrap_err();
    assert_eq!(full.message(), "no space is left; free some and run it again");
    assert_eq!(local.state().get(&app(), "revision").await.unwrap().unwrap().value, "1");

    std::fs::remove_file(&filler).unwrap();
    local.state().put(&lease.fence, "revision", &big, Expected::Version(version)).await.unwrap();
    local.close().await;
}

#[tokio::test]
async fn a_folder_that_cannot_be_written_to_is_refused() {
    let bed = Bed::new(Lifetime::Program);
    let Some(mounted) = Mounted::new(&bed.folder()) else { return };
    assert!(mount(&["-o", "remount,ro"], &mounted.0));
    let error = bed_error(&bed).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    let below = LocalConfig::new(mounted.0.join("below")).keys(bed.keys());
    let error = Local::open(below.lifetime(Lifetime::Program)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
    assert_eq!(error.message(), "the file system is read-only; choose another folder");
    let file = bed.temporary.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Local::open(LocalConfig::new(&file).keys(bed.keys())).await.unwrap_err();
    assert_eq!(error.message(), "something else is in the way; choose another path", "{error}");
}

async fn bed_error(bed: &Bed) -> deploykit_core::Error {
    Local::open(bed.config()).await.unwrap_err()
}
