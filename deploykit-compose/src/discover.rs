//! Which project is meant, and with which variables.
//!
//! [Where Compose looks](https://docs.docker.com/compose/how-tos/environment-variables/envvars/)

use std::path::{Path, PathBuf};

use crate::diagnostic::{ComposeError, Diagnostic};
use crate::dotenv::dotenv;
use crate::load::{LoadOptions, Variables};
use crate::yaml::Span;

const FILES: [&str; 4] =
    ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// What a caller says of a project; what it leaves open is looked for as Compose does.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// The folder that relative paths here begin at, and the search for files: an absolute path.
    pub folder: PathBuf,
    /// The variables of the process; they win over those of files.
    pub environment: Variables,
    /// The files, each laid over the ones before. Empty for those that `COMPOSE_FILE` names, else
    /// for `compose.yaml` and its override in `folder` or the nearest folder above that has one.
    pub files: Vec<PathBuf>,
    /// Files of variables. Empty for those that `COMPOSE_ENV_FILES` names, else for `.env` in the
    /// project's folder.
    pub env_files: Vec<PathBuf>,
    /// The profiles. Empty for those that `COMPOSE_PROFILES` names.
    pub profiles: Vec<String>,
    /// The project's name. Absent or empty for `COMPOSE_PROJECT_NAME`, else for what the files say,
    /// else for the name of the project's folder.
    pub project_name: Option<String>,
    /// The project's folder. Absent for the folder of the first file.
    pub project_directory: Option<PathBuf>,
}

impl Selection {
    /// What [`load`](crate::load) takes.
    ///
    /// ```
    /// use deploykit_compose::Selection;
    /// let folder = tempfile::tempdir()?;
    /// std::fs::write(folder.path().join("compose.yaml"), "services: {web: {image: 'nginx:$TAG'}}")?;
    /// std::fs::write(folder.path().join(".env"), "TAG=1.27\nCOMPOSE_PROJECT_NAME=shop\n")?;
    /// let selection = Selection { folder: folder.path().into(), ..Selection::default() };
    /// let project = deploykit_compose::load(&selection.options()?)?;
    /// assert_eq!(project.name(), "shop");
    /// assert_eq!(project.service("web").unwrap().str("image"), Some("nginx:1.27"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`ComposeError`] where there is no file, or a file of variables cannot be read.
    pub fn options(&self) -> Result<LoadOptions, ComposeError> {
        let mut environment = self.environment.clone();
        self.read_env_files(&self.working_dir(&self.files), &mut environment)?;
        let files = self.find_files(&environment)?;
        let working_dir = self.working_dir(&files);
        self.read_env_files(&working_dir, &mut environment)?;
        let mut options = LoadOptions::new(files, &working_dir);
        options.folder = self.folder.clone();
        let stated = |name: &str| environment.get(name).filter(|value| !value.is_empty());
        let named = self.project_name.clone().filter(|name| !name.is_empty());
        options.project_name = named.or_else(|| stated("COMPOSE_PROJECT_NAME").cloned());
        options.fallback_name =
            working_dir.file_name().map(|name| name.to_string_lossy().into_owned());
        options.profiles = match (self.profiles.is_empty(), stated("COMPOSE_PROFILES")) {
            (true, Some(named)) => named.split(',').map(|p| p.trim().to_owned()).collect(),
            _ => self.profiles.clone(),
        };
        options.environment = environment;
        Ok(options)
    }

    fn working_dir(&self, files: &[PathBuf]) -> PathBuf {
        if let Some(directory) = &self.project_directory {
            return self.folder.join(directory);
        }
        let first = files.iter().find(|file| file.as_os_str() != "-");
        let parent = first.and_then(|file| self.folder.join(file).parent().map(Path::to_owned));
        parent.unwrap_or_else(|| self.folder.clone())
    }

    fn find_files(&self, environment: &Variables) -> Result<Vec<PathBuf>, ComposeError> {
        if !self.files.is_empty() {
            return Ok(self.files.clone());
        }
        if let Some(named) = environment.get("COMPOSE_FILE") {
            let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|s| !s.is_empty());
            let separator = separator.map_or(":", String::as_str);
            return Ok(named.split(separator).map(PathBuf::from).collect());
        }
        let start = match &self.project_directory {
            Some(directory) => self.folder.join(directory),
            None => self.folder.clone(),
        };
        for folder in start.ancestors() {
            let first = |names: &[&str]| {
                names.iter().map(|name| folder.join(name)).find(|path| path.is_file())
            };
            if let Some(file) = first(&FILES) {
                return Ok([Some(file), first(&OVERRIDES)].into_iter().flatten().collect());
            }
        }
        let what = format!("there is no {} in {} or above it", FILES[0], start.display());
        Err(failed(what, "name a file"))
    }

    fn read_env_files(
        &self,
        working_dir: &Path,
        environment: &mut Variables,
    ) -> Result<(), ComposeError> {
        let named = self.environment.get("COMPOSE_ENV_FILES").map(String::as_str);
        let named = named.unwrap_or_default().split(',').filter(|name| !name.is_empty());
        let mut files = self.env_files.clone();
        if files.is_empty() {
            files.extend(named.map(PathBuf::from));
        }
        let disabled = self.environment.get("COMPOSE_DISABLE_ENV_FILE").map(String::as_str);
        let implied = working_dir.join(".env");
        if files.is_empty() && !matches!(disabled, Some("1" | "true")) && implied.is_file() {
            files.push(implied);
        }
        let mut read = Variables::new();
        for file in files {
            let path = self.folder.join(&file);
            let text = crate::load::read_bounded(&path)
                .map_err(|e| failed(format!("cannot read {}: {e}", file.display()), ""))?;
            dotenv(&text, &mut read, &|name| environment.get(name).cloned())
                .map_err(|e| failed(format!("{}: {e}", file.display()), ""))?;
        }
        for (name, value) in read {
            environment.entry(name).or_insert(value);
        }
        Ok(())
    }
}

fn failed(what: String, fix: &str) -> ComposeError {
    let nowhere = Span { source: u32::MAX, ..Span::default() };
    ComposeError::new(vec![Diagnostic::new(nowhere, "", what).fix(fix)], Vec::new().into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        std::fs::write(folder.join(name), text).unwrap();
    }

    fn in_folder(folder: &Path) -> Selection {
        Selection { folder: folder.to_owned(), ..Selection::default() }
    }

    #[test]
    fn the_nearest_file_above_and_its_override() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "docker-compose.yml", "");
        write(root.path(), "shop/compose.yml", "");
        write(root.path(), "shop/docker-compose.yml", "");
        write(root.path(), "shop/compose.override.yaml", "");
        write(root.path(), "shop/deep/er/x", "");
        let options = in_folder(&root.path().join("shop/deep/er")).options().unwrap();
        let names: Vec<_> = options.files.iter().map(|f| f.path.file_name().unwrap()).collect();
        assert_eq!(names, ["compose.yml", "compose.override.yaml"]);
        assert_eq!(options.working_dir, root.path().join("shop"));
        assert_eq!(options.fallback_name.as_deref(), Some("shop"));
        let nothing = in_folder(Path::new("/proc/self")).options().unwrap_err().to_string();
        assert!(nothing.contains("there is no compose.yaml in /proc/self"), "{nothing}");
    }

    #[test]
    fn variables_say_what_the_caller_leaves_open() {
        let root = tempfile::tempdir().unwrap();
        let env = "COMPOSE_FILE=a.yaml:sub/b.yaml\nCOMPOSE_PROFILES=x, y\nA=env\nB=env\n";
        write(root.path(), ".env", env);
        write(root.path(), "sub/one.env", "B=one\nC=${A}\n");
        write(root.path(), "sub/.env", "D=sub\n");
        let mut selection = in_folder(root.path());
        selection.environment.insert("A".into(), "process".into());
        let options = selection.options().unwrap();
        assert_eq!(options.files[1].path, Path::new("sub/b.yaml"));
        assert_eq!(options.profiles, ["x", "y"]);
        assert_eq!((&*options.environment["A"], &*options.environment["B"]), ("process", "env"));
        selection.env_files.push("sub/one.env".into());
        selection.files.push("sub/b.yaml".into());
        let options = selection.options().unwrap();
        assert_eq!(options.working_dir, root.path().join("sub"));
        assert_eq!((&*options.environment["B"], &*options.environment["C"]), ("one", "process"));
        assert!(!options.environment.contains_key("D"));
        selection.env_files = vec!["gone.env".into()];
        assert!(selection.options().unwrap_err().to_string().contains("gone.env"));
    }
}
