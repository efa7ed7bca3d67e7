//! Mounts.

use std::path::PathBuf;

use deploykit_core::model::{
    BindMount, ConfigMount, ConfigName, Mount, SecretMount, SecretName, TmpfsMount, VolumeMount,
    VolumeName,
};

use crate::short::parse_bytes;
use crate::yaml::Node;

use super::Converter;

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
            let Some(name) = self.parsed(secret, path, SecretName::new(source)) else { continue };
            // The usual place in a container is the standard place.
            let usual = format!("/run/secrets/{source}");
            let target = secret.str("target").filter(|t| *t != usual && *t != source);
            mounts.push(Mount::Secret(SecretMount { name, target: target.map(PathBuf::from) }));
        }
        for config in items("configs") {
            let source = config.str("source").unwrap_or_default();
            let Some(name) = self.parsed(config, path, ConfigName::new(source)) else { continue };
            let target = config.str("target").map(PathBuf::from);
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
                let name = self.parsed(node, path, VolumeName::new(source))?;
                Some(Mount::Volume(VolumeMount { name, target: Some(target), read_only }))
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
