//! Images: executables made into images and pushed, references fixed to their digests.

use deploykit_core::model::{AppName, ImageSpec, ResolvedImage, Workload};

use crate::config::K8sConfig;

/// How an image of an app is named by the nodes that pull it.
pub(crate) fn pull_reference(
    config: &K8sConfig,
    app: &AppName,
    workload: Option<Workload<'_>>,
    image: &ResolvedImage,
) -> String {
    let digest = &image.digest;
    match workload.map(|workload| workload.image) {
        Some(ImageSpec::Binary(_)) => {
            let registry = config.registry.as_deref().unwrap_or("registry.invalid");
            format!("{registry}/deploykit/{app}@{digest}")
        }
        _ => format!("{}@{digest}", repository(&image.source)),
    }
}

/// A reference without its tag and digest.
fn repository(reference: &str) -> &str {
    let named = reference.split_once('@').map_or(reference, |(named, _)| named);
    match named.rsplit_once(':') {
        // A colon before a slash is that of the registry's port.
        Some((repository, tag)) if !tag.contains('/') => repository,
        _ => named,
    }
}
