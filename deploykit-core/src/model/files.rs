//! Images made of files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::image::ImageRef;

/// An image made of files of this machine, upon another image or upon nothing.
///
/// ```
/// use deploykit_core::model::{ImageCopy, ImageFiles, ImageSpec};
/// let mut files = ImageFiles::default();
/// files.program = Some("target/release/web".into());
/// files.copies.push(ImageCopy::new("static", "/srv"));
/// files.user = Some("65532:65532".into());
/// assert_eq!(ImageSpec::files(files).to_string(), "files for target/release/web");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ImageFiles {
    /// The image below; absent for none. How that one is run stays, where nothing else is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<ImageRef>,
    /// A program, which is put into `/usr/local/bin` with its loader and the libraries that it
    /// needs, and is the entry point.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// What is copied, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub copies: Vec<ImageCopy>,
    /// Environment variables.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The program and its fixed arguments.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments that `args` replaces.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// The user, by name or number, and after a colon the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The folder that the program starts in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workdir: Option<PathBuf>,
    /// The ports listened on, for people: a service's own `ports` are what is published.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<u16>,
    /// The folders that are volumes of each container, where nothing else is mounted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<PathBuf>,
    /// The signal that asks the program to end, like `SIGTERM`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// Free facts, put on the image's configuration.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Free facts, put on the image's manifest.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Whether this machine's certificate authorities come along.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub certificates: bool,
    /// Whether this machine's time zones come along.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub time_zones: bool,
}

/// A file or folder that is copied into an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImageCopy {
    /// A file, or a folder with what is in it but for what its `.dockerignore` names. A relative
    /// path is resolved against the caller's working folder.
    pub from: PathBuf,
    /// An absolute path in the image.
    pub to: PathBuf,
    /// The mode of the files; absent for 0755 where they can be executed here and 0644 else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<FileMode>,
    /// Whose they are; absent for root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

impl ImageCopy {
    /// A copy with the usual modes, owned by root.
    pub fn new(from: impl Into<PathBuf>, to: impl Into<PathBuf>) -> Self {
        Self { from: from.into(), to: to.into(), mode: None, owner: None }
    }
}

/// A user and a group by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Owner {
    /// The user's number.
    pub user: u32,
    /// The group's number.
    pub group: u32,
}

/// What may be done with a file, as its octal digits: `0644`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct FileMode(u32);

/// Why a text is no [`FileMode`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a file's mode; write its octal digits in quotes, like \"0644\"")]
pub struct FileModeError(String);

impl FileMode {
    /// A mode of at most 0o7777.
    pub fn new(bits: u32) -> Option<Self> {
        (bits <= 0o7777).then_some(Self(bits))
    }

    /// Its bits.
    pub fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for FileMode {
    type Err = FileModeError;
    fn from_str(text: &str) -> Result<Self, FileModeError> {
        let digits = text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit());
        let bits = u32::from_str_radix(text, 8).ok().filter(|_| digits);
        bits.and_then(Self::new).ok_or_else(|| FileModeError(text.to_owned()))
    }
}

impl TryFrom<String> for FileMode {
    type Error = FileModeError;
    fn try_from(text: String) -> Result<Self, FileModeError> {
        text.parse()
    }
}

impl From<FileMode> for String {
    fn from(mode: FileMode) -> Self {
        mode.to_string()
    }
}

impl fmt::Display for FileMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o}", self.0)
    }
}
