//! What an instance runs.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::dockerfile::ImageBuild;
use super::files::ImageFiles;

/// What to run: an executable of this machine, an image of a registry, or one made here, of files
/// or from a Dockerfile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ImageSpec {
    /// An executable file. A relative path is resolved against the caller's working folder.
    Binary(PathBuf),
    /// An image by its reference, like `docker.io/library/nginx:1.27`.
    Reference(ImageRef),
    /// An image that is made of files.
    Files(Box<ImageFiles>),
    /// An image that an engine builds from a Dockerfile.
    Build(Box<ImageBuild>),
}

impl ImageSpec {
    /// An executable file.
    pub fn binary(path: impl Into<PathBuf>) -> Self {
        Self::Binary(path.into())
    }

    /// An image that is made of files.
    pub fn files(files: ImageFiles) -> Self {
        Self::Files(Box::new(files))
    }

    /// An image that an engine builds from a Dockerfile.
    pub fn build(build: ImageBuild) -> Self {
        Self::Build(Box::new(build))
    }
}

impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binary(path) => write!(f, "{}", path.display()),
            Self::Reference(reference) => reference.fmt(f),
            Self::Files(files) => match (&files.program, files.entrypoint.first()) {
                (Some(program), _) => write!(f, "files for {}", program.display()),
                (None, Some(program)) => write!(f, "files for {program}"),
                (None, None) => write!(f, "{} files", files.copies.len()),
            },
            Self::Build(build) => write!(f, "build of {}", build.context.display()),
        }
    }
}

/// The name of an image in a registry.
#[derive(
    Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ImageRef(String);

/// Why a text is not an image reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an image reference; write it like registry.example/team/name:tag")]
pub struct ImageRefError(String);

impl ImageRef {
    /// Parses a reference.
    ///
    /// # Errors
    /// [`ImageRefError`] where the text is empty or has characters that no reference has.
    pub fn new(text: impl Into<String>) -> Result<Self, ImageRefError> {
        let text = text.into();
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-/:@[]".contains(c);
        if text.is_empty() || !text.chars().all(fits) || text.starts_with(['/', ':', '@', '-']) {
            return Err(ImageRefError(text));
        }
        Ok(Self(text))
    }

    /// The reference as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ImageRefError;
    fn try_from(text: String) -> Result<Self, ImageRefError> {
        Self::new(text)
    }
}

impl From<ImageRef> for String {
    fn from(reference: ImageRef) -> Self {
        reference.0
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An image whose content is fixed: what [`ImageSpec`] becomes when an app is prepared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ResolvedImage {
    /// Where it came from, for people: a path or a reference.
    pub source: String,
    /// The digest of its content, like `sha256:…`. Only this makes instances differ.
    pub digest: String,
}

impl fmt::Display for ResolvedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hex = self.digest.split_once(':').map_or(self.digest.as_str(), |(_, hex)| hex);
        write!(f, "{}@{}", self.source, hex.get(..12).unwrap_or(hex))
    }
}
