//! Images: executables made into images and pushed, references fixed to their digests.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use deploykit_core::model::{AppName, ImageSpec, ResolvedImage, Workload};
use deploykit_core::{ErrorKind, ImageBuilder, Result};
use deploykit_oci::{Layout, Recipe, Reference, RegistryClient};

use crate::config::K8sConfig;
use crate::error::error;

const OPERATION: &str = "make the image ready";

/// Makes images ready for the nodes of a cluster.
#[derive(Debug)]
pub(crate) struct Images {
    config: K8sConfig,
    client: RegistryClient,
}

impl Images {
    pub(crate) fn new(config: K8sConfig) -> Self {
        Self { config, client: RegistryClient::default() }
    }

    /// Fixes an image to its digest, without a push.
    pub(crate) async fn resolve(&self, image: &ImageSpec) -> Result<ResolvedImage> {
        let (source, digest) = match image {
            ImageSpec::Binary(path) => {
                let (layout, recipe) = recipe(path).await?;
                let built = tokio::task::spawn_blocking(move || recipe.build(&layout));
                (path.display().to_string(), joined(built).await?.digest.to_string())
            }
            ImageSpec::Reference(name) => (name.to_string(), self.digest_of(name.as_str()).await?),
            other => return Err(unknown(other)),
        };
        Ok(ResolvedImage { source, digest })
    }

    /// The digest that a reference says, or its tag names in its registry.
    async fn digest_of(&self, name: &str) -> Result<String> {
        let name = reference(name)?;
        match name.digest() {
            Some(digest) => Ok(digest.to_string()),
            None => Ok(self.client.resolve(&name).await?.digest.to_string()),
        }
    }

    /// Makes an image of an executable and pushes it, where the registry does not have it.
    async fn push(&self, app: &AppName, path: &Path) -> Result<String> {
        let registry = self.config.registry.as_deref().ok_or_else(|| {
            let message = "no registry is named that the image could be pushed to; add \
                           ?registry=HOST:PORT to the URL";
            error(ErrorKind::Unsupported, OPERATION, message)
        })?;
        let to = reference(&format!("{registry}/deploykit/{app}"))?;
        let (layout, recipe) = recipe(path).await?;
        let image = self.client.build_and_push(recipe, &layout, &to, &[]).await?;
        Ok(image.digest.to_string())
    }
}

/// What the image of an executable is made of, and where.
async fn recipe(path: &Path) -> Result<(Layout, Recipe)> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        Ok((Layout::open(store())?, Recipe::binary(path)?.temporary_folder()?))
    });
    joined(read).await
}

async fn joined<T>(task: tokio::task::JoinHandle<Result<T>>) -> Result<T> {
    let ended = task.await;
    ended.map_err(|cause| {
        error(ErrorKind::Failed, OPERATION, "the build broke off").because(cause)
    })?
}

fn unknown(image: &ImageSpec) -> deploykit_core::Error {
    error(ErrorKind::Unsupported, OPERATION, format!("{image} is of an unknown kind"))
}

/// Where images are built: a cache, which may be deleted at any time.
fn store() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("deploykit/images")
}

fn reference(text: &str) -> Result<Reference> {
    Reference::parse_normalized(text).map_err(|cause| {
        error(ErrorKind::Invalid, OPERATION, format!("`{text}` is no reference")).because(cause)
    })
}

#[async_trait]
impl ImageBuilder for Images {
    async fn build(&self, app: &AppName, image: &ImageSpec) -> Result<ResolvedImage> {
        let (source, digest) = match image {
            ImageSpec::Binary(path) => (path.display().to_string(), self.push(app, path).await?),
            ImageSpec::Reference(name) => {
                // Also where it says its digest: one that is not there is refused beforehand.
                let found = self.client.resolve(&reference(name.as_str())?).await?;
                (name.to_string(), found.digest.to_string())
            }
            other => return Err(unknown(other)),
        };
        Ok(ResolvedImage { source, digest })
    }
}

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

#[cfg(test)]
mod tests {
    use super::repository;

    #[test]
    fn a_repository_is_a_reference_without_tag_and_digest() {
        assert_eq!(repository("127.0.0.1:5000/team/web:1.2"), "127.0.0.1:5000/team/web");
        assert_eq!(repository("127.0.0.1:5000/team/web"), "127.0.0.1:5000/team/web");
        assert_eq!(repository("nginx:1@sha256:ab"), "nginx");
    }
}
