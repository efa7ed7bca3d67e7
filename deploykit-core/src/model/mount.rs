//! Files that an instance finds: volumes, secrets, configs, and the host's.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::{ConfigName, SecretName, VolumeName};
use super::units::Bytes;

/// Something that an instance finds in its file system.
///
/// Without a target, a volume is the folder `$VOLUMES_DIR/<name>`, a secret the file
/// `$SECRETS_DIR/<name>`, a config the file `$CONFIGS_DIR/<name>`: places that every backend has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Mount {
    /// A volume of the app.
    Volume(VolumeMount),
    /// A path of the host.
    Bind(BindMount),
    /// A folder in memory.
    Tmpfs(TmpfsMount),
    /// A secret of the app, readable by the instance's user alone.
    Secret(SecretMount),
    /// A config of the app.
    Config(ConfigMount),
}

/// See [`Mount::Volume`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VolumeMount {
    /// The volume.
    pub name: VolumeName,
    /// An absolute path; absent for the standard place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathBuf>,
    /// Whether writing is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// See [`Mount::Bind`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BindMount {
    /// An absolute path of the host.
    pub source: PathBuf,
    /// An absolute path.
    pub target: PathBuf,
    /// Whether writing is refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
}

/// See [`Mount::Tmpfs`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TmpfsMount {
    /// An absolute path.
    pub target: PathBuf,
    /// Its size at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<Bytes>,
}

/// See [`Mount::Secret`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SecretMount {
    /// The secret.
    pub name: SecretName,
    /// An absolute path; absent for the standard place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathBuf>,
}

/// See [`Mount::Config`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigMount {
    /// The config.
    pub name: ConfigName,
    /// An absolute path; absent for the standard place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathBuf>,
}

impl Mount {
    /// The stated target path, where there is one.
    pub fn target(&self) -> Option<&PathBuf> {
        match self {
            Self::Volume(m) => m.target.as_ref(),
            Self::Bind(m) => Some(&m.target),
            Self::Tmpfs(m) => Some(&m.target),
            Self::Secret(m) => m.target.as_ref(),
            Self::Config(m) => m.target.as_ref(),
        }
    }
}

/// Data that outlives instances.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Volume {
    /// Who shares it.
    #[serde(default)]
    pub scope: VolumeScope,
}

/// Who shares a volume.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VolumeScope {
    /// All instances that mount it.
    #[default]
    Shared,
    /// Each replica has one of its own, found again by the instance that takes its place.
    PerReplica,
}

/// A secret that the app uses; its value is kept by the backend's secret store, never here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Secret {
    /// How many of its newest versions are kept beside those that revisions name. Default 3.
    #[serde(default = "three")]
    pub keep: u32,
}

fn three() -> u32 {
    3
}

impl Default for Secret {
    fn default() -> Self {
        Self { keep: three() }
    }
}

/// A file that is no secret. A change of its content rolls the services that mount it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The content.
    pub content: String,
}
