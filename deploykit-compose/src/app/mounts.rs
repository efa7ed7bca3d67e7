//! Mounts.

use std::path::{Path, PathBuf};

use deploykit_core::model::{
    BindMount, ConfigMount, ConfigName, Mount, SecretMount, SecretName, TmpfsMount, VolumeMount,
    VolumeName,
};

use crate::short::parse_bytes;
use crate::yaml::Node;

use super::{Converter, own_name};

/// Where containers find what is mounted without a target.
pub(crate) const SECRETS: &str = "/run/secrets";
/// The same of configs.
pub(crate) const CONFIGS: &str = "/run/configs";
/// The same of volumes.
pub(crate) const VOLUMES: &str = "/volumes";

/// A target that is not the standard place.
fn unless_standard(target: PathBuf, folder: &str, name: &str) -> Option<PathBuf> {
    (target != Path::new(folder).join(name)).then_some(target)
}

impl Converter<'_> {
    pub(super) fn mounts(&mut self, node: &Node, path: &str) -> Vec<Mount> {
        let items = |key: &str| node.get(key).map(Node::items).unwrap_or_default();
        let mut mounts = Vec::new();
        for volume in items("volumes") {
            mounts.extend(self.volume(volume, &format!("{path}.volumes")));
        }
        for tmpfs in items("tmpfs") {
            mounts.extend(self.tmpfs(tmpfs, &format!("{path}.tmpfs")));
        }
        for secret in items("secrets") {
            let source = secret.str("source").unwrap_or_default();
            let name = SecretName::new(own_name(source));
            let Some(name) = self.parsed(secret, path, name) else { continue };
            let target = Path::new(SECRETS).join(secret.str("target").unwrap_or(source));
            let target = unless_standard(target, SECRETS, name.as_str());
            mounts.push(Mount::Secret(SecretMount { name, target }));
        }
        for config in items("configs") {
            let source = config.str("source").unwrap_or_default();
            let name = ConfigName::new(own_name(source));
            let Some(name) = self.parsed(config, path, name) else { continue };
            let target = Path::new("/").join(config.str("target").unwrap_or(source));
            let target = unless_standard(target, CONFIGS, name.as_str());
            mounts.push(Mount::Config(ConfigMount { name, target }));
        }
        mounts
    }

    fn volume(&mut self, node: &Node, path: &str) -> Option<Mount> {
        let target = PathBuf::from(node.str("target")?);
        let read_only = node.get("read_only").and_then(Node::as_bool) == Some(true);
        let source = node.str("source");
        match (node.str("type"), source) {
            (Some("volume"), Some(source)) => {
                let name = self.parsed(node, path, VolumeName::new(own_name(source)))?;
                let target = unless_standard(target, VOLUMES, name.as_str());
                Some(Mount::Volume(VolumeMount { name, target, read_only }))
            }
            (Some("bind"), Some(source)) => {
                Some(Mount::Bind(BindMount { source: source.into(), target, read_only }))
            }
            (Some("tmpfs"), None) => {
                let size = node.get("tmpfs").and_then(|t| t.get("size"));
                let size = size.and_then(|size| self.bytes(size, path));
                Some(Mount::Tmpfs(TmpfsMount { target, size }))
            }
            (Some("volume"), None) => {
                self.problem(node.span, path, "a volume needs a name; declare it under `volumes`");
                None
            }
            (kind, _) => {
                let what =
                    format!("a mount of type `{}` is not supported here", kind.unwrap_or_default());
                self.problem(node.span, path, what);
                None
            }
        }
    }

    fn tmpfs(&mut self, node: &Node, path: &str) -> Option<Mount> {
        let text = node.as_str()?;
        let (target, options) = text.split_once(':').unwrap_or((text, ""));
        let mut size = None;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.strip_prefix("size=").and_then(parse_bytes) {
                Some(bytes) => size = self.bytes(&node.text(bytes.to_string()), path),
                None => {
                    self.problem(node.span, path, format!("the option `{option}` is not supported"))
                }
            }
        }
        Some(Mount::Tmpfs(TmpfsMount { target: target.into(), size }))
    }
}
