//! Every open case passes, where the folder of them is found.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

use deploykit_conformance::vectors::KINDS;

/// `DEPLOYKIT_VECTORS`, or `../shared/conformance/open` beside the workspace.
fn open_cases() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    std::env::var_os("DEPLOYKIT_VECTORS")
        .map_or_else(|| workspace.join("../shared/conformance/open"), PathBuf::from)
}

#[test]
fn every_open_case_passes() {
    let folder = open_cases();
    if !folder.is_dir() {
        assert!(std::env::var("CI").is_err(), "{} holds no cases", folder.display());
        eprintln!("skipped: {} holds no cases; DEPLOYKIT_VECTORS names them", folder.display());
        return;
    }
    let mut failures = Vec::new();
    for kind in KINDS {
        let outcomes = kind.run(&folder.join(kind.path)).unwrap();
        assert!(!outcomes.is_empty(), "no cases of {}", kind.name);
        for outcome in outcomes {
            if let Err(why) = outcome.result {
                failures.push(format!("{} {}: {why}", kind.name, outcome.id));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
