//! Images built from a Dockerfile.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An image that an engine builds from a Dockerfile
/// (<https://docs.docker.com/reference/dockerfile/>). Field names are those of Compose's `build`
/// (<https://github.com/compose-spec/compose-spec/blob/main/build.md>).
///
/// ```
/// use deploykit_core::model::{ImageBuild, ImageSpec};
/// let mut build = ImageBuild::new("web");
/// build.target = Some("release".into());
/// assert_eq!(ImageSpec::build(build).to_string(), "build of web");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageBuild {
    /// The folder that is sent, but for what its `.dockerignore` names. A relative path is
    /// resolved against the caller's working folder.
    pub context: PathBuf,
    /// The Dockerfile, from the context on; absent for `Dockerfile`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<PathBuf>,
    /// The Dockerfile's text, in place of a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dockerfile_inline: Option<String>,
    /// Values of the Dockerfile's `ARG`s. They can be seen in the image: none of them is secret.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub args: BTreeMap<String, String>,
    /// The stage that is built; absent for the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Free facts, put on the image.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What `RUN --mount=type=secret,id=NAME` finds; it is in no layer.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, BuildSecret>,
    /// Whether every step is made anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Whether images that it begins with are asked for where they are here already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
}

impl ImageBuild {
    /// A build of the `Dockerfile` in a folder.
    pub fn new(context: impl Into<PathBuf>) -> Self {
        Self { context: context.into(), ..Self::default() }
    }
}

/// Where the value of a build's secret is, on the machine that deploys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BuildSecret {
    /// In a file. A relative path is resolved against the caller's working folder.
    File(PathBuf),
    /// In a variable of the environment.
    Environment(String),
}
