//! Which app is meant: a Compose project, or a file of the model itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use deploykit::compose::{
    ComposeError, LoadOptions, Project, SecretSource, Selection, examine, from_app, from_yaml, load,
};
use deploykit::model::{App, SecretName};
use deploykit::{Deployer, Error, ErrorKind, Result, SecretValue};

use crate::output::Output;
use crate::{Backend, file};

#[derive(clap::Args, Default)]
pub struct FileArguments {
    /// A Compose file, or a file of the model as YAML or JSON; `-` for standard input. Compose
    /// files that are given after another are laid over it. [default: COMPOSE_FILE, or
    /// compose.yaml and compose.override.yaml, here or in the nearest folder above]
    #[arg(short, long, value_name = "FILE")]
    file: Vec<PathBuf>,
    /// A file of variables for Compose files; repeatable. [default: .env]
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A profile of the Compose project whose services are wanted too; repeatable, `*` for all.
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// The name of the Compose project, which is the app's.
    #[arg(short, long, value_name = "NAME")]
    project_name: Option<String>,
    /// The folder that paths in Compose files begin at [default: that of the first file]
    #[arg(long, value_name = "FOLDER")]
    project_directory: Option<PathBuf>,
}

/// What a file comes to.
pub struct Source {
    pub app: App,
    /// Where the values of secrets are, that a Compose project has itself.
    pub secrets: BTreeMap<SecretName, SecretSource>,
}

impl FileArguments {
    /// Whether the caller has named a file.
    pub fn is_stated(&self) -> bool {
        !self.file.is_empty()
    }

    /// The app that is meant; `backend` says which keys of Compose files may be left out.
    pub fn source(&self, backend: &Backend, output: &Output) -> Result<Source> {
        match self.input()? {
            Input::Model(app) => Ok(Source { app: *app, secrets: BTreeMap::new() }),
            Input::Compose(stdin) => {
                let project = self.project(stdin, false, output)?;
                match examine(&project, &backend.omitted_keys()) {
                    (Some(found), None) => Ok(Source { app: found.app, secrets: found.secrets }),
                    (_, problems) => Err(refused(problems, output)),
                }
            }
        }
    }

    /// Prints the project with everything in its place; of an app, the Compose file that loads to
    /// it.
    pub fn config(&self, output: &Output) -> Result<()> {
        match self.input()? {
            Input::Model(app) => {
                let text = from_app(&app)?;
                output.value(&*app, || text.trim_end().to_owned())
            }
            Input::Compose(stdin) => {
                let project = self.project(stdin, true, output)?;
                output.value(project.root(), || project.to_yaml().trim_end().to_owned())
            }
        }
    }

    /// Says that an app is valid; where a backend is named, also that it honours all of it. What
    /// the file and the backend object to is told at once.
    pub async fn validate(&self, backend: &Backend, output: &Output) -> Result<()> {
        let (app, problems) = match self.input()? {
            Input::Model(app) => (Some(*app), None),
            Input::Compose(stdin) => {
                let project = self.project(stdin, false, output)?;
                let (found, problems) = examine(&project, &backend.omitted_keys());
                (found.map(|found| found.app), problems)
            }
        };
        let mut refusals = Vec::new();
        let mut name = "";
        let deployer = match backend.on {
            Some(_) => Some(backend.open().await?),
            None => None,
        };
        if let (Some(deployer), Some(app)) = (&deployer, &app) {
            name = deployer.backend().name();
            let allowed = backend.features().collect();
            refusals = deployer.backend().capabilities().check(app, name, &allowed);
        }
        match (app, problems) {
            (_, Some(problems)) => {
                let error = refused(Some(problems), output);
                let all = error.problems().iter().cloned().chain(refusals).collect();
                Err(error.with_problems(all))
            }
            (Some(app), None) if !refusals.is_empty() => {
                let message = format!("{name} cannot honour all of it");
                let error = Error::new(ErrorKind::Unsupported, "validate the app", message);
                Err(error.with("app", &app.name).with_problems(refusals))
            }
            (Some(app), None) => {
                let (services, jobs) = (app.services.len(), app.jobs.len());
                let text = || format!("{} is valid: {services} services, {jobs} jobs", app.name);
                output.value(&app, text)
            }
            (None, None) => Ok(()), // An app that cannot be told has problems.
        }
    }

    /// What the files are; of standard input with its text, which cannot be read twice.
    fn input(&self) -> Result<Input> {
        let standard = self.file.iter().find(|path| path.as_os_str() == "-");
        let stdin = standard.map(|path| file::text(path)).transpose()?;
        let [path] = &self.file[..] else { return Ok(Input::Compose(stdin)) };
        let text = match &stdin {
            Some(text) => text,
            None => &file::text(path)?,
        };
        if is_compose(path, text) {
            return Ok(Input::Compose(stdin));
        }
        let app = App::from_yaml(text).map_err(|error| error.with("file", path.display()))?;
        Ok(Input::Model(Box::new(app)))
    }

    fn project(&self, stdin: Option<String>, normalize: bool, output: &Output) -> Result<Project> {
        let folder = std::env::current_dir().map_err(|e| file::failed("find", "the folder", e))?;
        let selection = Selection {
            folder,
            environment: std::env::vars().collect(),
            files: self.file.clone(),
            env_files: self.env_file.clone(),
            profiles: self.profile.clone(),
            project_name: self.project_name.clone(),
            project_directory: self.project_directory.clone(),
        };
        let project = selection.options().and_then(|mut options: LoadOptions| {
            options.normalize = normalize;
            for file in options.files.iter_mut().filter(|file| file.path.as_os_str() == "-") {
                file.text.clone_from(&stdin);
            }
            load(&options)
        });
        project.map_err(|error| refused(Some(error), output))
    }
}

enum Input {
    Model(Box<App>),
    Compose(Option<String>),
}

/// Whether a file is of Compose and not of the model: by its name, else by what only one has.
fn is_compose(path: &Path, text: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.contains("compose") {
        return true;
    }
    let Ok(root) = from_yaml(text) else { return false };
    let only_here = ["jobs", "isolated", "registry", "keep_revisions", "labels", "raw"];
    if only_here.iter().any(|key| root.get(key).is_some()) {
        return false;
    }
    let services = root.get("services").into_iter().flat_map(|services| services.entries());
    let of_compose = |(_, service): (&str, &deploykit::compose::Node)| {
        service.str("image").is_some() || service.get("build").is_some()
    };
    root.get("include").is_some() || services.into_iter().any(of_compose)
}

fn refused(error: Option<ComposeError>, output: &Output) -> Error {
    let Some(error) = error else {
        return Error::new(ErrorKind::Invalid, "load the Compose project", "there is no app in it");
    };
    if output.json {
        return error.into();
    }
    // People see where it stands.
    let count = match error.diagnostics().len() {
        1 => "1 problem".to_owned(),
        n => format!("{n} problems"),
    };
    let message = format!("{count}\n\n{}", error.to_string().trim_end());
    Error::new(ErrorKind::Invalid, "load the Compose project", message)
}

/// Puts the values of secrets that a project has itself into the backend's store, where they are
/// not there already.
///
/// Nothing is stored of an app that the backend refuses.
pub async fn store_secrets(
    backend: &Backend,
    deployer: &Deployer,
    source: &Source,
    output: &Output,
) -> Result<()> {
    let (app, name) = (&source.app.name, deployer.backend().name());
    let allowed = backend.features().collect();
    if !deployer.backend().capabilities().check(&source.app, name, &allowed).is_empty() {
        return Ok(());
    }
    let secrets = deployer.secrets(app);
    let readable = deployer.backend().capabilities().secrets_readable;
    for (name, place) in &source.secrets {
        let value = value(place)?;
        let newest = secrets.versions(name).await?.last().copied();
        match newest {
            Some(version) if readable => {
                let store = deployer.backend().secrets();
                if store.get(app, name, version).await? == value {
                    continue;
                }
            }
            Some(_) => {
                if !output.json {
                    let what = format!(
                        "the secret {name} stays as it is on this backend, which \
                                        cannot be asked for its value; `secret set` changes it"
                    );
                    eprintln!("{what}");
                }
                continue;
            }
            None => {}
        }
        secrets.put(name, value).await?;
    }
    Ok(())
}

fn value(place: &SecretSource) -> Result<SecretValue> {
    match place {
        SecretSource::Environment(variable) => SecretValue::from_env(variable),
        SecretSource::File(path) => std::fs::read(path).map(SecretValue::new).map_err(|e| {
            Error::new(ErrorKind::Invalid, "read a secret", e.to_string())
                .with("file", path.display())
        }),
    }
}

/// What a backend may leave out: a part of the model, or a key of Compose files.
#[derive(Clone, Debug)]
pub enum Omission {
    Feature(deploykit::Feature),
    Key(String),
}

impl std::str::FromStr for Omission {
    type Err = serde_json::Error;
    fn from_str(text: &str) -> Result<Self, serde_json::Error> {
        match text.contains('.') {
            true => Ok(Self::Key(text.to_owned())),
            false => serde_json::from_value(text.into()).map(Self::Feature),
        }
    }
}

impl Backend {
    pub fn features(&self) -> impl Iterator<Item = deploykit::Feature> {
        self.allow.iter().filter_map(|omission| match omission {
            Omission::Feature(feature) => Some(*feature),
            Omission::Key(_) => None,
        })
    }

    fn omitted_keys(&self) -> BTreeSet<String> {
        let keys = self.allow.iter().filter_map(|omission| match omission {
            Omission::Feature(_) => None,
            Omission::Key(key) => Some(key.clone()),
        });
        keys.collect()
    }
}
