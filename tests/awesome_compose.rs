//! What each backend would refuse of the projects of awesome-compose: `docs/awesome-compose.md`
//! says it, and is held to it here. `UPDATE_AWESOME_COMPOSE=1` writes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "compose", feature = "local"))]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use deploykit::compose::{Project, Selection, Variables, examine, load};
use deploykit::local::{Lifetime, LocalConfig};
use deploykit::{Deployer, Orchestrator};

const HEAD: &str = "# awesome-compose\n\n\
    What would be refused of the projects of [awesome-compose](https://github.com/docker/awesome-compose), \
    as `deployctl --on URL validate` says it beforehand. All of them load. *Keys* are those of \
    Compose files that the model has nothing for, or that have to be allowed by name; *features* \
    are parts of the model that the backend does not honour, and fields with a value that it cannot. \
    Kubernetes is one with a registry and an engine that builds. Written by the test \
    `awesome_compose`.\n";

/// `DEPLOYKIT_VECTORS`, or `../shared/conformance/open` beside the workspace.
fn projects() -> Vec<PathBuf> {
    let folder = std::env::var_os("DEPLOYKIT_VECTORS")
        .map_or_else(|| "../shared/conformance/open".into(), PathBuf::from)
        .join("awesome-compose");
    if !folder.is_dir() {
        assert!(std::env::var("CI").is_err(), "{} holds no projects", folder.display());
        eprintln!("skipped: {} holds no projects; DEPLOYKIT_VECTORS names them", folder.display());
        return Vec::new();
    }
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    all.sort();
    all
}

fn project(folder: &Path) -> Project {
    let selection = Selection {
        folder: folder.canonicalize().unwrap(),
        environment: Variables::from([("HOME".into(), "/home/me".into())]),
        ..Selection::default()
    };
    let mut options = selection.options().unwrap();
    options.normalize = false;
    load(&options).unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
}

/// Every key of a project's own, as the table of keys has it: `services.web.build` is
/// `services.*.build`.
fn pattern(path: &str) -> String {
    let mut parts = path.split('.');
    let section = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.skip(1).collect();
    match rest.is_empty() {
        true => format!("{section}.*"),
        false => format!("{section}.*.{}", rest.join(".")),
    }
}

fn report(backend: &dyn Orchestrator, projects: &[PathBuf]) -> String {
    let name = backend.name();
    let mut out = format!("\n## {name}\n\n| project | keys | features |\n|---|---|---|\n");
    let mut whole = 0;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for folder in projects {
        let (converted, problems) = examine(&project(folder), &BTreeSet::new());
        let found = problems.iter().flat_map(|problems| problems.diagnostics());
        let keys: BTreeSet<String> = found.map(|d| pattern(&d.path)).collect();
        let app = converted.map(|converted| converted.app);
        let none = BTreeSet::new();
        let missing = app
            .iter()
            .flat_map(|app| backend.capabilities().check(app, name, &none))
            .filter_map(|problem| problem.what.split('`').nth(1).map(str::to_owned));
        let values =
            app.iter().flat_map(|app| backend.refuses(app)).map(|problem| pattern(&problem.path));
        let features: BTreeSet<String> = missing.chain(values).collect();
        whole += usize::from(keys.is_empty() && features.is_empty());
        for reason in keys.iter().chain(&features) {
            *reasons.entry(reason.clone()).or_default() += 1;
        }
        let cell = |all: &BTreeSet<String>| {
            let marked = all.iter().map(|one| match one.split_once(' ') {
                Some((key, why)) => format!("`{key}` {why}"),
                None => format!("`{one}`"),
            });
            marked.collect::<Vec<_>>().join(", ")
        };
        let features = match app {
            Some(_) => cell(&features),
            None => "not told: it is no app without these keys".to_owned(),
        };
        let project = folder.file_name().unwrap().to_string_lossy();
        writeln!(out, "| {project} | {} | {features} |", cell(&keys)).unwrap();
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
    let most: Vec<String> =
        reasons.iter().take(5).map(|(reason, n)| format!("{reason}: {n}")).collect();
    writeln!(
        out,
        "\n{whole} of {} go as they are. Most often in the way: {}.",
        projects.len(),
        most.join("; ")
    )
    .unwrap();
    out
}

/// Every backend that is there.
async fn backends(folder: &Path) -> Vec<Deployer> {
    let config = LocalConfig::new(folder).lifetime(Lifetime::Program);
    let local = deploykit::local::open(config).await.unwrap();
    #[allow(unused_mut, reason = "other backends are optional")]
    let mut all = vec![Deployer::new(std::sync::Arc::new(local))];
    #[cfg(feature = "docker")]
    match std::env::var("DEPLOYKIT_TEST_DOCKER") {
        Ok(url) => {
            let engine = url.replacen("unix://", "docker://", 1);
            all.push(deploykit::open(&engine).await.unwrap());
            #[cfg(feature = "k8s")]
            all.push(kubernetes(folder, &engine).await);
        }
        Err(_) => {
            assert!(std::env::var("CI").is_err(), "DEPLOYKIT_TEST_DOCKER is not set");
            eprintln!("skipped: DEPLOYKIT_TEST_DOCKER is not set");
        }
    }
    all
}

/// Nothing is asked of the cluster: what it refuses is known beforehand.
#[cfg(all(feature = "docker", feature = "k8s"))]
async fn kubernetes(folder: &Path, engine: &str) -> Deployer {
    let kubeconfig = folder.join("kubeconfig");
    let text = "{apiVersion: v1, kind: Config, current-context: c, users: [{name: u, user: {}}], \
        contexts: [{name: c, context: {cluster: c, user: u}}], \
        clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]}";
    std::fs::write(&kubeconfig, text).unwrap();
    let kubeconfig = kubeconfig.display();
    let url = format!("k8s://?kubeconfig={kubeconfig}&registry=127.0.0.1:5000&builder={engine}");
    deploykit::open(&url).await.unwrap()
}

#[tokio::test]
async fn the_report_is_up_to_date() {
    let projects = projects();
    if projects.is_empty() {
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/awesome-compose.md");
    let kept = std::fs::read_to_string(&page).unwrap_or_default();
    let sections = kept.split("\n## ").skip(1);
    let mut sections: BTreeMap<String, String> = sections
        .map(|s| (s.lines().next().unwrap().to_owned(), format!("\n## {}\n", s.trim_end())))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    for deployer in backends(folder.path()).await {
        let backend = deployer.backend();
        let text = report(backend.as_ref(), &projects);
        sections.insert(backend.name().to_owned(), text);
    }
    let now = HEAD.to_owned() + &sections.into_values().collect::<String>();
    if std::env::var_os("UPDATE_AWESOME_COMPOSE").is_some() {
        std::fs::write(&page, &now).unwrap();
        return;
    }
    assert!(kept == now, "run this test with UPDATE_AWESOME_COMPOSE=1 and look at the change");
}
