//! Every project of awesome-compose loads, and what becomes an app comes back from its file.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use deploykit_compose::{
    ComposeFile, LoadOptions, Project, Selection, Variables, examine, from_app, load, to_app,
};

/// `DEPLOYKIT_VECTORS`, or `../shared/conformance/open` beside the workspace.
fn projects() -> Vec<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let folder = std::env::var_os("DEPLOYKIT_VECTORS")
        .map_or_else(|| workspace.join("../shared/conformance/open"), Into::into)
        .join("awesome-compose");
    if !folder.is_dir() {
        assert!(std::env::var("CI").is_err(), "{} holds no projects", folder.display());
        eprintln!("skipped: {} holds no projects; DEPLOYKIT_VECTORS names them", folder.display());
        return Vec::new();
    }
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    all.sort();
    assert!(all.len() > 30, "only {} projects in {}", all.len(), folder.display());
    all
}

fn project(folder: &Path) -> Project {
    let selection = Selection {
        folder: folder.to_owned(),
        environment: Variables::from([("HOME".into(), "/home/me".into())]),
        ..Selection::default()
    };
    let mut options = selection.options().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    options.normalize = false;
    load(&options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

#[test]
fn every_project_loads_and_comes_back_from_its_app() {
    let mut apps = 0;
    for folder in projects() {
        let project = project(&folder);
        let (Some(converted), _) = examine(&project, &BTreeSet::new()) else { continue };
        apps += 1;
        let text = from_app(&converted.app)
            .unwrap_or_else(|e| panic!("{}: {e}\n{:?}", folder.display(), e.problems()));
        let mut options = LoadOptions::new([], &folder);
        options.normalize = false;
        options.files.push(ComposeFile { path: "again.yaml".into(), text: Some(text.clone()) });
        let again = load(&options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        let again = to_app(&again, &BTreeSet::new()).unwrap_or_else(|e| panic!("{e}\n{text}")).app;
        assert_eq!(again, converted.app, "{}:\n{text}", folder.display());
    }
    assert!(apps > 10 || projects().is_empty(), "only {apps} projects become apps");
}
