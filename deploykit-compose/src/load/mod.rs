//! From files to one project.

mod consistency;
mod environment;
mod extends;
mod files;
mod include;
mod name;
mod normalize;
mod paths;
mod select;

pub(crate) use files::read_bounded;
pub(crate) use paths::clean;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::diagnostic::{ComposeError, Diagnostic, Source};
use crate::merge::{clear_marks, merge};
use crate::schema::{Checker, MOST_PROBLEMS, PROJECT, Shape, prune};
use crate::yaml::{Entry, Mapping, Node, Span, Value, to_yaml, without_variables};

/// Variables and their values.
pub type Variables = BTreeMap<String, String>;

/// One Compose file.
#[derive(Clone, Debug)]
pub struct ComposeFile {
    /// Its path, which errors name.
    pub path: PathBuf,
    /// Its text; absent where it is to be read from the path.
    pub text: Option<String>,
}

impl From<PathBuf> for ComposeFile {
    fn from(path: PathBuf) -> Self {
        Self { path, text: None }
    }
}

/// What is loaded, and how.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The files; each is laid over the ones before.
    pub files: Vec<ComposeFile>,
    /// The folder that relative paths in the files begin at.
    pub working_dir: PathBuf,
    /// The folder that a relative `working_dir` and relative paths of `files` begin at. Default
    /// the program's own.
    pub folder: PathBuf,
    /// The variables that files may use.
    pub environment: Variables,
    /// The project's name; absent where the files say it.
    pub project_name: Option<String>,
    /// The project's name where neither `project_name` nor the files say it: its letters, digits,
    /// `-` and `_` count.
    pub fallback_name: Option<String>,
    /// The profiles whose services are wanted beside those without a profile; `*` for all.
    pub profiles: Vec<String>,
    /// The services that are wanted, with what they depend on; empty for all.
    pub services: Vec<String>,
    /// Whether relative paths are completed. Default yes.
    pub resolve_paths: bool,
    /// Whether what is implied is written out (the default network, full names). Default yes.
    pub normalize: bool,
    /// Whether names that are used have to be declared, and more of that kind. Default yes.
    pub check_consistency: bool,
}

impl LoadOptions {
    /// Loads `files`, whose relative paths begin at `working_dir`.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, working_dir: impl Into<PathBuf>) -> Self {
        Self {
            files: files.into_iter().map(ComposeFile::from).collect(),
            working_dir: working_dir.into(),
            folder: PathBuf::new(),
            environment: Variables::new(),
            project_name: None,
            fallback_name: None,
            profiles: Vec::new(),
            services: Vec::new(),
            resolve_paths: true,
            normalize: true,
            check_consistency: true,
        }
    }
}

/// A project: all its files in one, in the long forms of every value.
///
/// ```
/// use deploykit_compose::{ComposeFile, LoadOptions, Node, load};
/// let mut options = LoadOptions::new([], "/srv/shop");
/// let text = "name: shop\nservices: {web: {image: 'nginx:${TAG:-1.27}', ports: [8080:80]}}";
/// options.files.push(ComposeFile { path: "compose.yaml".into(), text: Some(text.into()) });
/// let project = load(&options)?;
/// let web = project.service("web").unwrap();
/// assert_eq!(web.str("image"), Some("nginx:1.27"));
/// assert_eq!(web.get("ports").unwrap().items()[0].get("target").and_then(Node::as_int), Some(80));
/// # Ok::<(), deploykit_compose::ComposeError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Project {
    pub(crate) name: String,
    pub(crate) root: Node,
    pub(crate) sources: Arc<Vec<Source>>,
    /// The variables that configs may be made of.
    pub(crate) environment: Variables,
    /// The folder that relative paths begin at.
    pub(crate) folder: PathBuf,
}

impl Project {
    /// The project's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole project as a tree.
    pub fn root(&self) -> &Node {
        &self.root
    }

    /// A service.
    pub fn service(&self, name: &str) -> Option<&Node> {
        self.root.get("services")?.get(name)
    }

    /// The project as a Compose file that loads to the same project, where its values were not
    /// stated as empty texts: such are left out, as Compose does.
    pub fn to_yaml(&self) -> String {
        to_yaml(&without_variables(&self.root))
    }
}

/// Loads a project.
///
/// # Errors
/// [`ComposeError`] with everything that is wrong, each shown where it stands.
pub fn load(options: &LoadOptions) -> Result<Project, ComposeError> {
    let mut loader = Loader {
        options,
        sources: Vec::new(),
        contexts: Vec::new(),
        variables: Arc::default(),
        problems: Vec::new(),
        told: 0,
        values: 0,
    };
    let loaded = loader.load();
    let sources = Arc::new(loader.sources);
    match loaded {
        Some((name, root)) if loader.problems.is_empty() => Ok(Project {
            name,
            root,
            sources,
            environment: options.environment.clone(),
            folder: options.folder.clone(),
        }),
        _ => Err(ComposeError::new(loader.problems, sources)),
    }
}

/// What holds for everything in one source.
#[derive(Clone)]
struct Context {
    /// The variables that it may use.
    environment: Arc<Variables>,
    /// The folder that its relative paths have been completed with, where they have.
    resolved: Option<String>,
}

struct Loader<'a> {
    options: &'a LoadOptions,
    sources: Vec<Source>,
    contexts: Vec<Context>,
    /// The variables of the project.
    variables: Arc<Variables>,
    problems: Vec<Diagnostic>,
    /// How many of the problems earlier steps have found.
    told: usize,
    /// How many values have been read, in all files.
    values: usize,
}

impl Loader<'_> {
    fn problem(&mut self, span: Span, path: &str, what: impl Into<String>) {
        if self.problems.len() < MOST_PROBLEMS {
            self.problems.push(Diagnostic::new(span, path, what));
        }
    }

    fn load(&mut self) -> Option<(String, Node)> {
        let (name, files) = self.read_files()?;
        let mut environment = self.options.environment.clone();
        environment.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
        let environment = Arc::new(environment);
        self.variables = Arc::clone(&environment);
        let mut layers = Vec::new();
        for (path, documents) in files {
            for document in documents {
                let source = document.span.source as usize;
                if let Some(context) = self.contexts.get_mut(source) {
                    context.environment = Arc::clone(&environment);
                }
                let layer = files::Layer {
                    node: document,
                    path: path.clone(),
                    working_dir: self.options.working_dir.clone(),
                    included: false,
                };
                self.expand(layer, &mut Vec::new(), &mut layers);
            }
        }
        if self.is_spent() {
            return None;
        }
        self.step();
        let mut root = Node::new(Value::Map(Mapping::new()), Span::default());
        for (index, layer) in layers.into_iter().enumerate() {
            // What is there is looked at again below each layer.
            let before = if index == 0 { 0 } else { root.size() };
            self.spend(before * files::TEXT, layer.node.span)?;
            match merge(root, layer.node) {
                Ok(merged) => root = merged,
                Err(problems) => {
                    self.problems.extend(problems);
                    return None;
                }
            }
            clear_marks(&mut root);
            self.lift_external(&mut root);
            let mut checker = Checker::default();
            checker.check(&mut root, &Shape::Object(&PROJECT), "");
            self.problems.extend(checker.problems);
            self.step();
        }
        self.finish(name, root)
    }

    /// Nothing where something is wrong already.
    fn stop(&self) -> Option<()> {
        self.problems.is_empty().then_some(())
    }

    /// Ends a step that was also taken where something is wrong already: what it says of the same
    /// places follows from that, and helps nobody.
    fn step(&mut self) {
        let found = self.problems.split_off(self.told);
        let new = |d: &Diagnostic| !self.problems.iter().any(|told| told.span.overlaps(d.span));
        let found: Vec<Diagnostic> = found.into_iter().filter(new).collect();
        self.problems.extend(found);
        self.told = self.problems.len();
    }

    fn finish(&mut self, name: String, mut root: Node) -> Option<(String, Node)> {
        if self.options.resolve_paths {
            let working_dir = self.options.working_dir.clone();
            self.add_build_contexts(&mut root);
            self.resolve_paths(&mut root, &working_dir.to_string_lossy());
        }
        root.take("version");
        normalize::defaults(&mut root);
        self.check_values(&root);
        self.step();
        self.resolve_variables(&mut root);
        if self.options.normalize {
            self.normalize(&name, &mut root);
        }
        prune(&mut root, &Shape::Object(&PROJECT));
        let disabled = self.select_profiles(&mut root);
        if self.options.check_consistency {
            self.check_consistency(&root, &disabled);
            self.step();
            normalize::replicas(&mut root);
        }
        self.stop()?;
        self.select_services(&mut root, disabled);
        self.read_variable_files(&mut root);
        self.stop()?;
        let mut ordered = Mapping::new();
        let text = Node::new(Value::String(name.clone()), Span::default());
        ordered.insert("name".into(), Entry { key: Span::default(), node: text });
        let nothing = Node::new(Value::Map(Mapping::new()), root.span);
        let services = root.take("services").unwrap_or(nothing);
        ordered.insert("services".into(), Entry { key: services.span, node: services });
        root.take("name");
        ordered.extend(root.as_map_mut().map(std::mem::take).unwrap_or_default());
        root.value = Value::Map(ordered);
        Some((name, root))
    }
}
