//! The behaviour kit on detached supervisors: each test has a state folder and a supervisor of its
//! own, which has to end, and to leave nothing, when the test's apps have been removed.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use deploykit_conformance::{Bed, Connected, Kit};
use deploykit_core::Reconciler;
use deploykit_local::{Local, LocalConfig};

fn main() -> ExitCode {
    Kit::new(connect)
        .first(deploykit_local::init)
        .host_killed_by(kill_supervisor)
        .afterwards(nothing_is_left)
        .run()
}

async fn connect(bed: Bed) -> Connected {
    let config = LocalConfig::new(bed.folder().join("state")).keys(bed.folder().join("keys"));
    let local = Local::open(config).await?;
    Ok(Arc::new(Reconciler::new(bed.faulty(local))))
}

fn kill_supervisor(bed: &Bed) {
    let pid = common::supervisor(&bed.folder().join("state"));
    common::kill("-KILL", pid.expect("the supervisor of what has been deployed"));
}

async fn nothing_is_left(bed: Bed) {
    let deadline = Instant::now() + Duration::from_secs(60);
    // A folder that was opened and never written to is left empty; a supervisor removes its own.
    let left = || -> Vec<_> {
        let entries = std::fs::read_dir(bed.folder().join("state"));
        entries.into_iter().flatten().flatten().map(|entry| entry.file_name()).collect()
    };
    while !left().is_empty() {
        assert!(Instant::now() < deadline, "the supervisor has not ended: {:?}", left());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
