//! From a Compose project to the model.

mod build;
mod fields;
mod job;
pub(crate) mod mounts;
mod ports;
mod service;
mod unmapped;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use deploykit_core::model::{
    App, AppName, Config, ConfigName, Network, NetworkName, Secret, SecretName, ServiceName,
    Volume, VolumeName,
};

use crate::diagnostic::{ComposeError, Diagnostic};
use crate::load::Project;
use crate::yaml::{Node, Span};

/// The key of a service that names an executable of this machine, to be run in place of an image;
/// empty for none.
pub(crate) const BINARY: &str = "x-deploykit-binary";

/// What a project comes to.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The app.
    pub app: App,
    /// Where the values of secrets are, that the project has itself; to be put into the backend's
    /// secret store before a deploy.
    pub secrets: BTreeMap<SecretName, SecretSource>,
}

/// Where the value of a secret is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable of the environment.
    Environment(String),
}

/// Turns a project, loaded with `normalize: false`, into an app. A service that another one waits
/// to complete, or whose `deploy.mode` is a job's, becomes a job. `docs/compose-keys.md` lists what
/// becomes of every key; `allowed` names keys of that table that may be left out, like
/// `services.*.container_name`. A service with `x-deploykit-binary: PATH` runs that executable.
///
/// ```
/// use std::collections::BTreeSet;
/// use deploykit_compose::{ComposeFile, LoadOptions, load, to_app};
/// let text = "name: shop\nservices: {web: {image: nginx, init: true, deploy: {replicas: 2}}}";
/// let mut options = LoadOptions::new([], "/srv/shop");
/// options.normalize = false;
/// options.files.push(ComposeFile { path: "compose.yaml".into(), text: Some(text.into()) });
/// let project = load(&options)?;
/// assert!(to_app(&project, &BTreeSet::new()).unwrap_err().to_string().contains("init"));
/// let app = to_app(&project, &BTreeSet::from(["services.*.init".to_owned()]))?.app;
/// assert_eq!(app.services["web"].replicas.to_string(), "2");
/// # Ok::<(), deploykit_compose::ComposeError>(())
/// ```
///
/// # Errors
/// [`ComposeError`] with everything that the model cannot say and everything it does not accept,
/// each shown where it stands.
pub fn to_app(project: &Project, allowed: &BTreeSet<String>) -> Result<Converted, ComposeError> {
    match examine(project, allowed) {
        (Some(converted), None) => Ok(converted),
        (_, Some(problems)) => Err(problems),
        (None, None) => Err(ComposeError::new(Vec::new(), Arc::clone(&project.sources))),
    }
}

/// Like [`to_app`], but gives both: the app where there is one without the keys that it has
/// nothing for, and everything that is wrong. For those who want to know beforehand.
pub fn examine(
    project: &Project,
    allowed: &BTreeSet<String>,
) -> (Option<Converted>, Option<ComposeError>) {
    let mut converter = Converter { project, problems: Vec::new(), secrets: BTreeMap::new() };
    let app = converter.app();
    let mut problems = converter.problems;
    unmapped::check(project.root(), allowed, &mut problems);
    let converted = app.map(|app| Converted { app, secrets: converter.secrets });
    let problems =
        (!problems.is_empty()).then(|| ComposeError::new(problems, Arc::clone(&project.sources)));
    (converted, problems)
}

struct Converter<'a> {
    project: &'a Project,
    problems: Vec<Diagnostic>,
    secrets: BTreeMap<SecretName, SecretSource>,
}

impl Converter<'_> {
    fn problem(&mut self, span: Span, path: &str, what: impl Into<String>) {
        self.problems.push(Diagnostic::new(span, path, what));
    }

    /// What was parsed; else nothing, and what is wrong is noted.
    fn parsed<T, E: std::fmt::Display>(
        &mut self,
        node: &Node,
        path: &str,
        parsed: Result<T, E>,
    ) -> Option<T> {
        parsed.map_err(|error| self.problem(node.span, path, error.to_string())).ok()
    }

    fn app(&mut self) -> Option<App> {
        let root = self.project.root();
        let name = AppName::new(own_name(self.project.name()));
        let name = self.parsed(root.get("name")?, "name", name);
        let mut app = App::new(name.or_else(|| AppName::new("app").ok())?);
        for (key, node) in section(root, "networks") {
            if key == "default" {
                continue;
            }
            let path = format!("networks.{key}");
            let Some(name) = self.parsed(node, &path, NetworkName::new(own_name(key))) else {
                continue;
            };
            let internal = node.get("internal").and_then(Node::as_bool) == Some(true);
            if app.networks.insert(name, Network { internal }).is_some() {
                self.taken(node, &path);
            }
        }
        for (key, node) in section(root, "volumes") {
            let path = format!("volumes.{key}");
            let name = self.parsed(node, &path, VolumeName::new(own_name(key)));
            if name.is_some_and(|name| app.volumes.insert(name, Volume::default()).is_some()) {
                self.taken(node, &path);
            }
        }
        for (key, node) in section(root, "secrets") {
            if build::is_of_builds(root, key) {
                continue;
            }
            let path = format!("secrets.{key}");
            let Some(name) = self.parsed(node, &path, SecretName::new(own_name(key))) else {
                continue;
            };
            let file =
                node.str("file").map(|file| SecretSource::File(self.project.folder.join(file)));
            let variable = node.str("environment").map(|v| SecretSource::Environment(v.to_owned()));
            if let Some(source) = file.or(variable) {
                self.secrets.insert(name.clone(), source);
            }
            if app.secrets.insert(name, Secret::default()).is_some() {
                self.taken(node, &path);
            }
        }
        for (key, node) in section(root, "configs") {
            let path = format!("configs.{key}");
            let Some(name) = self.parsed(node, &path, ConfigName::new(own_name(key))) else {
                continue;
            };
            if let Some(content) = self.content(node, &path)
                && app.configs.insert(name, Config { content }).is_some()
            {
                self.taken(node, &path);
            }
        }
        let jobs = job::names(root);
        for (key, node) in section(root, "services") {
            let path = format!("services.{key}");
            let Some(name) = self.parsed(node, &path, ServiceName::new(key)) else { continue };
            if jobs.contains(key) {
                if let Some(job) = self.job(node, &path) {
                    app.jobs.insert(name, job);
                }
            } else if let Some(service) = self.service(node, &path) {
                app.services.insert(name, service);
            }
        }
        if !self.problems.is_empty() {
            return None;
        }
        if let Err(error) = app.validate() {
            for problem in error.problems() {
                let span = at(root, &problem.path).map_or(Span::default(), |node| node.span);
                let found = Diagnostic::new(span, problem.path.clone(), problem.what.clone());
                self.problems.push(found.fix(problem.fix.clone()));
            }
        }
        self.problems.is_empty().then_some(app)
    }

    fn taken(&mut self, node: &Node, path: &str) {
        self.problem(node.span, path, "another one has the same name but for `_` and case");
    }

    fn content(&mut self, node: &Node, path: &str) -> Option<String> {
        if let Some(content) = node.str("content") {
            return Some(content.to_owned());
        }
        if let Some(variable) = node.str("environment") {
            let value = self.project.environment.get(variable).cloned();
            if value.is_none() {
                self.problem(node.span, path, format!("the variable {variable} is not set"));
            }
            return value;
        }
        let Some(file) = node.str("file") else { return Some(String::new()) };
        let file = self.project.folder.join(file);
        let read = std::fs::read_to_string(&file);
        self.parsed(
            node,
            path,
            read.map_err(|error| format!("cannot read {}: {error}", file.display())),
        )
    }
}

/// A name within the project as the model has it: names of Compose may have `_`, `.` and capital
/// letters. Names of services stay: others reach them by these.
fn own_name(text: &str) -> String {
    text.to_ascii_lowercase().replace(['_', '.'], "-")
}

fn section<'a>(root: &'a Node, key: &str) -> impl Iterator<Item = (&'a str, &'a Node)> {
    root.get(key).into_iter().flat_map(Node::entries)
}

/// The node that a path of the model is nearest to.
fn at<'a>(root: &'a Node, path: &str) -> Option<&'a Node> {
    let mut parts = path.split('.');
    let part = parts.next()?;
    let top = root.get(if part == "jobs" { "services" } else { part })?;
    Some(parts.next().and_then(|name| top.get(name)).unwrap_or(top))
}
