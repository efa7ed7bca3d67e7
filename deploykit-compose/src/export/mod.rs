//! From the model back to a Compose file.

mod service;

use std::fmt::Display;

use deploykit_core::model::{App, Network, Secret, VolumeScope};
use deploykit_core::{Error, Problem, Result};

use crate::yaml::{Mapping, Node, Value, to_yaml, without_variables};

/// Writes an app as a Compose file that loads to the same app.
///
/// ```
/// use deploykit_compose::from_app;
/// use deploykit_core::model::{App, ImageRef, ImageSpec, Port, Service};
/// let image = ImageSpec::Reference(ImageRef::new("nginx:1.27")?);
/// let web = Service::build("web", image.clone()).port(Port::tcp(80).public());
/// let app = App::build("shop").service(web).validate()?;
/// assert!(from_app(&app)?.contains("image: \"nginx:1.27\""));
/// let routed = App::build("shop").keep_revisions(3).service(Service::build("web", image)).validate()?;
/// assert_eq!(from_app(&routed).unwrap_err().problems()[0].path, "keep_revisions");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// `Invalid` with everything that Compose has no word for, each with its path.
pub fn from_app(app: &App) -> Result<String> {
    let mut exporter = Exporter { problems: Vec::new() };
    let root = exporter.app(app);
    match exporter.problems.is_empty() {
        true => Ok(to_yaml(&without_variables(&root))),
        false => Err(Error::invalid("write the app as a Compose file", exporter.problems)),
    }
}

struct Exporter {
    problems: Vec<Problem>,
}

impl Exporter {
    fn problem(&mut self, path: impl Display, what: &str) {
        self.problems.push(Problem::new(path.to_string(), what, "remove it"));
    }

    fn app(&mut self, app: &App) -> Node {
        let stated = [
            (app.isolated, "isolated", "Compose cannot keep services of one network apart"),
            (app.registry.is_some(), "registry", "Compose has no registry of services"),
            (app.keep_revisions != 10, "keep_revisions", "Compose has no revisions"),
            (!app.labels.is_empty(), "labels", "Compose has no labels of a project"),
            (!app.raw.is_empty(), "raw", "Compose has no objects of one backend"),
        ];
        for (path, what) in stated.into_iter().filter(|s| s.0).map(|(_, path, what)| (path, what)) {
            self.problem(path, what);
        }
        let mut root = map();
        root.set("name", text(&app.name));
        let mut services = map();
        for (name, service) in &app.services {
            services.put(name.as_str(), self.service(name, service));
        }
        for (name, job) in &app.jobs {
            let awaited = app.workloads().any(|(_, workload)| {
                use deploykit_core::model::Condition::Completed;
                workload.depends_on.get(name) == Some(&Completed)
            });
            services.put(name.as_str(), self.job(name, job, awaited));
        }
        root.put("services", services);
        section(&mut root, "networks", &app.networks, |network: &Network| match network.internal {
            true => with([("internal", Value::Bool(true))]),
            false => map(),
        });
        for (name, volume) in &app.volumes {
            if volume.scope != VolumeScope::Shared {
                let what = "Compose has no volumes of single replicas";
                self.problem(format!("volumes.{name}.scope"), what);
            }
        }
        section(&mut root, "volumes", &app.volumes, |_| map());
        for (name, secret) in &app.secrets {
            if *secret != Secret::default() {
                let what = "Compose has no versions of secrets";
                self.problem(format!("secrets.{name}.keep"), what);
            }
        }
        let external = |_: &Secret| with([("external", Value::Bool(true))]);
        section(&mut root, "secrets", &app.secrets, external);
        section(&mut root, "configs", &app.configs, |config| {
            with([("content", text(&config.content))])
        });
        root
    }
}

fn section<'a, K: AsRef<str> + 'a, V: 'a>(
    root: &mut Node,
    key: &str,
    all: impl IntoIterator<Item = (&'a K, &'a V)>,
    node: impl Fn(&V) -> Node,
) {
    let mut map = map();
    for (name, item) in all {
        map.put(name.as_ref(), node(item));
    }
    root.set_some(key, map.value);
}

fn map() -> Node {
    Node { value: Value::Map(Mapping::new()), ..Node::default() }
}

fn with<const N: usize>(entries: [(&str, Value); N]) -> Node {
    Node::default().map(entries)
}

fn text(text: impl ToString) -> Value {
    Value::String(text.to_string())
}

fn list(items: impl IntoIterator<Item = Value>) -> Value {
    Value::List(items.into_iter().map(|value| Node { value, ..Node::default() }).collect())
}
