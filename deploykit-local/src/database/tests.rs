#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use deploykit_core::model::{AppName, SecretName};
use deploykit_core::{ErrorKind, Expected, Fence, Lease};

use super::*;

fn app() -> AppName {
    AppName::new("blog").unwrap()
}

fn database() -> (tempfile::TempDir, Database, Fence) {
    let temp = tempfile::tempdir().unwrap();
    let mut database = Database::open(&temp.path().join("state.db")).unwrap();
    let lease = database.acquire(&app(), "me", Duration::from_secs(30), false).unwrap();
    (temp, database, lease.fence)
}

#[test]
fn values_are_written_by_compare_and_swap_under_the_newest_epoch() {
    let (temp, mut database, fence) = database();
    let one = database.put(&fence, "revisions/1", "a", Expected::Absent).unwrap();
    let taken = database.put(&fence, "revisions/1", "b", Expected::Absent).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict);
    let two = database.put(&fence, "revisions/1", "b", Expected::Version(one)).unwrap();
    assert!(two > one);
    assert_eq!(database.delete(&fence, "revisions/1", one).unwrap_err().kind(), ErrorKind::Conflict);
    database.delete(&fence, "none", 5).unwrap();
    database.put(&fence, "other", "c", Expected::Absent).unwrap();
    let keys: Vec<String> = database.list(&app(), "rev").unwrap().into_iter().map(|e| e.key).collect();
    assert_eq!(keys, ["revisions/1"]);
    assert_eq!(database.list(&app(), "%").unwrap(), []);

    let taken_over = database.acquire(&app(), "other", Duration::from_secs(30), true).unwrap();
    assert_eq!(taken_over.fence.epoch, fence.epoch + 1);
    let late = database.put(&fence, "revisions/2", "x", Expected::Absent).unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    assert!(late.message().contains("taken over by other"), "{late}");
    assert!(database.get(&app(), "revisions/2").unwrap().is_none());

    let id = database.folder_id().to_owned();
    drop(database);
    let database = Database::open(&temp.path().join("state.db")).unwrap();
    assert_eq!(database.folder_id(), id);
    assert_eq!(database.get(&app(), "revisions/1").unwrap().unwrap().value, "b");
    assert_eq!(database.apps().unwrap(), [app()]);
}

#[test]
fn a_lock_is_refused_while_it_is_held_and_its_epoch_outlives_it() {
    let (_temp, mut database, fence) = database();
    let refused = database.acquire(&app(), "other", Duration::ZERO, false).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.context().contains(&("holder".to_owned(), "me".to_owned())));
    let lease = Lease { fence: fence.clone(), holder: "me".into() };
    database.renew(&lease, Duration::from_secs(30)).unwrap();
    assert_eq!(database.held().unwrap(), [(app(), Duration::from_secs(30))]);
    database.release(&lease).unwrap();
    database.release(&lease).unwrap();
    assert!(database.held().unwrap().is_empty());
    assert_eq!(database.renew(&lease, Duration::ZERO).unwrap_err().kind(), ErrorKind::Conflict);
    let next = database.acquire(&app(), "other", Duration::ZERO, false).unwrap();
    assert_eq!(next.fence.epoch, fence.epoch + 1);
    assert_eq!(database.check_fence(&fence).unwrap_err().kind(), ErrorKind::Conflict);
}

#[test]
fn secret_numbers_are_never_used_twice() {
    let (_temp, mut database, _) = database();
    let name = SecretName::new("db").unwrap();
    let seal = |version: u64| Ok(vec![version as u8]);
    assert_eq!(database.add_secret(&app(), &name, true, &seal).unwrap(), 1);
    assert_eq!(database.add_secret(&app(), &name, true, &seal).unwrap(), 1);
    assert_eq!(database.add_secret(&app(), &name, false, &seal).unwrap(), 2);
    assert_eq!(database.secret_versions(&app(), &name).unwrap(), [1, 2]);
    assert_eq!(database.sealed_secret(&app(), &name, 2).unwrap(), [2]);
    database.delete_secrets(&app(), &name, &[1, 2, 9]).unwrap();
    assert_eq!(database.sealed_secret(&app(), &name, 2).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(database.add_secret(&app(), &name, true, &seal).unwrap(), 3);
    assert_eq!(database.secrets(&app()).unwrap(), [(name, 3)]);
}

#[test]
fn a_newer_layout_is_refused_and_left_as_it_is() {
    let (temp, database, _) = database();
    let path = temp.path().join("state.db");
    drop(database);
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let before = fs::read(&path).unwrap();
    let error = Database::open(&path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(
        error.message(),
        "it was written by a newer version of DeployKit (layout 2; this program knows 1): use that version, or another folder"
    );
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[test]
fn a_damaged_file_is_refused_and_kept() {
    let (temp, database, _) = database();
    let path = temp.path().join("state.db");
    drop(database);
    let whole = fs::read(&path).unwrap();
    for offset in [0_u64, 4096, 8192] {
        fs::write(&path, &whole).unwrap();
        fs::File::options().write(true).open(&path).unwrap().write_all_at(&[0xa5; 600], offset).unwrap();
        let before = fs::read(&path).unwrap();
        let error = Database::open(&path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "offset {offset}: {error}");
        assert!(error.message().contains("was left as it is: put a copy of it back, or move it away"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
    fs::write(&path, "this is no database, not even nearly one").unwrap();
    assert_eq!(Database::open(&path).unwrap_err().kind(), ErrorKind::Corrupt);
}
