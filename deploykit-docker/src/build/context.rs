//! What an engine is sent to build from.

use std::io::{ErrorKind as Io, Write};
use std::path::{Path, PathBuf};

use deploykit_core::model::ImageBuild;
use deploykit_core::{Error, ErrorKind, Result};
use deploykit_oci::{DockerIgnore, Dockerfile, Reference};

use super::BUILD;
use crate::error::error;

/// Where a Dockerfile that is not of the context is put.
const FOREIGN: &str = ".deploykit.Dockerfile";
const IGNORE: &str = ".dockerignore";

/// A context that was looked at.
#[derive(Debug)]
pub(super) struct Context {
    folder: PathBuf,
    ignore: DockerIgnore,
    /// Where the Dockerfile is in the archive.
    pub(super) dockerfile: String,
    text: String,
}

fn wrong(path: &Path, what: impl Into<String>) -> Error {
    error(ErrorKind::Invalid, BUILD, what).with("path", path.display())
}

fn unread(path: &Path) -> impl Fn(std::io::Error) -> Error {
    let path = path.to_owned();
    move |cause| {
        let kind = match cause.kind() {
            Io::NotFound => ErrorKind::NotFound,
            _ => ErrorKind::Invalid,
        };
        error(kind, BUILD, cause.to_string()).with("path", path.display())
    }
}

impl Context {
    /// Reads the Dockerfile and what is left out.
    pub(super) fn open(build: &ImageBuild) -> Result<Self> {
        let folder = build.context.canonicalize().map_err(unread(&build.context))?;
        if !folder.is_dir() {
            return Err(wrong(&folder, "the context is no folder"));
        }
        let file = folder.join(build.dockerfile.as_deref().unwrap_or(Path::new("Dockerfile")));
        let text = match &build.dockerfile_inline {
            Some(text) => text.clone(),
            None => std::fs::read_to_string(&file).map_err(unread(&file))?,
        };
        Dockerfile::parse(&text).map_err(|cause| wrong(&file, cause.to_string()))?;
        let within = file.canonicalize().ok();
        let within = within.as_deref().and_then(|file| file.strip_prefix(&folder).ok());
        let dockerfile = match (&build.dockerfile_inline, within.and_then(Path::to_str)) {
            (None, Some(path)) => path.to_owned(),
            _ => FOREIGN.to_owned(),
        };
        // As BuildKit does: one beside the Dockerfile comes before that of the context.
        let own = PathBuf::from(format!("{}{IGNORE}", file.display()));
        let ignore = match std::fs::read_to_string(&own) {
            Err(cause) if cause.kind() == Io::NotFound => {
                std::fs::read_to_string(folder.join(IGNORE))
            }
            read => read,
        };
        let ignore = match ignore {
            Ok(text) => DockerIgnore::parse(&text).map_err(|problems| {
                wrong(&folder, "a .dockerignore is wrong").with_problems(problems)
            })?,
            Err(cause) if cause.kind() == Io::NotFound => DockerIgnore::default(),
            Err(cause) => return Err(unread(&folder.join(IGNORE))(cause)),
        };
        Ok(Self { folder, ignore, dockerfile, text })
    }

    /// The registries whose images it begins with.
    pub(super) fn registries(&self) -> Vec<String> {
        let instructions = Dockerfile::parse(&self.text).map(|file| file.instructions);
        let from = instructions.unwrap_or_default().into_iter().filter(|i| i.name == "from");
        let images = from.filter_map(|from| {
            let name = from.arguments.split_whitespace().next()?.to_owned();
            Some(Reference::parse_normalized(&name).ok()?.domain().to_owned())
        });
        let mut all: Vec<String> = images.collect();
        all.sort();
        all.dedup();
        all
    }

    /// Writes it as an archive; owners are left out, so that it is the same for whoever builds.
    pub(super) fn write(&self, to: impl Write) -> Result<()> {
        let mut archive = tar::Builder::new(to);
        self.folder(&mut archive, "")?;
        if self.dockerfile == FOREIGN {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            header.set_mtime(0);
            header.set_size(self.text.len() as u64);
            let written = archive.append_data(&mut header, FOREIGN, self.text.as_bytes());
            written.map_err(unread(&self.folder))?;
        }
        archive.into_inner().and_then(|mut to| to.flush()).map_err(unread(&self.folder))
    }

    fn folder<W: Write>(&self, archive: &mut tar::Builder<W>, within: &str) -> Result<()> {
        let folder = self.folder.join(within);
        let entries = std::fs::read_dir(&folder).map_err(unread(&folder))?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(unread(&folder))?.file_name();
            let name = name.into_string().map_err(|name| {
                wrong(&folder.join(name), "the name is no UTF-8, so that it cannot be sent")
            })?;
            names.push(name);
        }
        names.sort();
        for name in names {
            let inside = if within.is_empty() { name } else { format!("{within}/{name}") };
            let path = self.folder.join(&inside);
            let facts = path.symlink_metadata().map_err(unread(&path))?;
            // The engine reads these two even where they are left out of the image.
            let needed = inside == self.dockerfile || inside == IGNORE;
            let excluded = !needed && self.ignore.excludes(&inside);
            if facts.is_dir() {
                let parent = self.dockerfile.starts_with(&format!("{inside}/"));
                if excluded && !parent && !self.ignore.keeps_some() {
                    continue;
                }
                if !excluded {
                    let mut header = header(&facts);
                    archive
                        .append_data(&mut header, format!("{inside}/"), std::io::empty())
                        .map_err(unread(&path))?;
                }
                self.folder(archive, &inside)?;
            } else if excluded {
                continue;
            } else if facts.is_symlink() {
                let target = path.read_link().map_err(unread(&path))?;
                let mut header = header(&facts);
                archive.append_link(&mut header, &inside, target).map_err(unread(&path))?;
            } else if facts.is_file() {
                let file = std::fs::File::open(&path).map_err(unread(&path))?;
                let mut header = header(&facts);
                archive.append_data(&mut header, &inside, file).map_err(unread(&path))?;
            }
        }
        Ok(())
    }
}

fn header(facts: &std::fs::Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_metadata(facts);
    header.set_uid(0);
    header.set_gid(0);
    header
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn sent(folder: &Path, build: ImageBuild) -> (String, Vec<String>) {
        let context = Context::open(&ImageBuild { context: folder.into(), ..build }).unwrap();
        let mut bytes = Vec::new();
        context.write(&mut bytes).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap();
        let path = |e: std::io::Result<tar::Entry<'_, _>>| {
            e.unwrap().path().unwrap().display().to_string()
        };
        (context.dockerfile.clone(), entries.map(path).collect())
    }

    #[test]
    fn what_is_ignored_is_not_sent() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("docker/Dockerfile", "FROM registry.example/base:1\n");
        write(".dockerignore", "*\n!src\nsrc/*.o\n");
        write("src/a.c", "");
        write("src/a.o", "");
        write("secret", "");
        let own = ImageBuild { dockerfile: Some("docker/Dockerfile".into()), ..Default::default() };
        let (file, all) = sent(folder.path(), own.clone());
        assert_eq!(file, "docker/Dockerfile");
        assert_eq!(all, [".dockerignore", "docker/Dockerfile", "src/", "src/a.c"]);

        let text = Some("FROM scratch\n".to_owned());
        let inline = ImageBuild { dockerfile_inline: text, ..Default::default() };
        let (file, all) = sent(folder.path(), inline);
        assert_eq!(file, FOREIGN);
        assert_eq!(all, [".dockerignore", "src/", "src/a.c", FOREIGN]);

        let context = Context::open(&ImageBuild { context: folder.path().into(), ..own }).unwrap();
        assert_eq!(context.registries(), ["registry.example"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let none = Context::open(&ImageBuild::new(folder.path())).unwrap_err();
        assert_eq!(none.kind(), ErrorKind::NotFound);
        assert!(none.to_string().contains("Dockerfile"), "{none}");
        std::fs::write(folder.path().join("Dockerfile"), "RUN <<EOF\n").unwrap();
        let broken = Context::open(&ImageBuild::new(folder.path())).unwrap_err();
        assert_eq!(broken.kind(), ErrorKind::Invalid);
    }
}
