//! Images: executables made into images and pushed, references fixed to their digests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use deploykit_core::model::{AppName, ImageFiles, ImageSpec, ResolvedImage, Signal, Workload};
use deploykit_core::{ErrorKind, EventSender, ImageBuilder, Result};
use deploykit_oci::spec::{Execution, Image, media_type};
use deploykit_oci::{Digest, DigestError, Layout, Recipe, Reference, RegistryClient};

use crate::config::K8sConfig;
use crate::error::error;
use crate::objects::NOBODY;

/// How often a push is tried that the registry finds to be incomplete.
const PUSHES: u32 = 3;
const OPERATION: &str = "make the image ready";

/// Makes images ready for the nodes of a cluster.
pub(crate) struct Images {
    config: K8sConfig,
    client: RegistryClient,
    /// Who builds from Dockerfiles and pushes to our repository.
    pub(crate) builder: Option<Arc<dyn ImageBuilder>>,
}

impl std::fmt::Debug for Images {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Images").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Images {
    pub(crate) fn new(config: K8sConfig) -> Self {
        Self { config, client: RegistryClient::default(), builder: None }
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
            ImageSpec::Files(files) if files.base.is_some() && files.user.is_none() => {
                let message = "who it runs as is looked up in its base when it is pushed, which a \
                               rendering does not; say `user`";
                return Err(error(ErrorKind::Unsupported, OPERATION, message).with("image", image));
            }
            ImageSpec::Files(files) => {
                let built = self.of_files()?.build_as(&with_user(files), None).await?;
                (image.to_string(), built.digest.to_string())
            }
            other => return Err(unknown(other)),
        };
        Ok(ResolvedImage { source, digest })
    }

    /// What makes images of files.
    fn of_files(&self) -> Result<deploykit_oci::Images> {
        Ok(deploykit_oci::Images::new(Layout::open(store())?, self.client.clone()))
    }

    /// The digest that a reference says, or its tag names in its registry.
    async fn digest_of(&self, name: &str) -> Result<String> {
        let name = reference(name)?;
        match name.digest() {
            Some(digest) => Ok(digest.to_string()),
            None => Ok(self.client.resolve(&name).await?.digest.to_string()),
        }
    }

    /// An image of ours, with another signal that asks it to end: nodes take that from the image.
    pub(crate) async fn with_stop_signal(
        &self,
        image: &ResolvedImage,
        signal: Signal,
    ) -> Result<ResolvedImage> {
        let name = serde_json::to_value(signal).map_err(unreadable)?;
        let name = name.as_str().map(str::to_owned);
        self.with_config(image, |config| config.stop_signal = name).await
    }

    /// An image of ours with another configuration, pushed beside it.
    async fn with_config(
        &self,
        image: &ResolvedImage,
        change: impl FnOnce(&mut Execution) + Send,
    ) -> Result<ResolvedImage> {
        let repository = self.repository()?;
        let digest: Digest = image.digest.parse().map_err(|cause: DigestError| {
            error(ErrorKind::Corrupt, OPERATION, "the image has no digest").because(cause)
        })?;
        let mut manifest = self.client.document(&repository.at(digest)).await?.manifest()?;
        let bytes = self.client.blob(&repository, &manifest.config).await?;
        let mut config: Image = serde_json::from_slice(&bytes).map_err(unreadable)?;
        let before = config.config.clone();
        change(&mut config.config);
        if config.config == before {
            return Ok(image.clone());
        }
        let bytes = serde_json::to_vec(&config).map_err(unreadable)?;
        manifest.config.size = bytes.len() as u64;
        manifest.config.digest = self.client.push_blob(&repository, bytes).await?;
        let bytes = serde_json::to_vec(&manifest).map_err(unreadable)?;
        let kind = manifest.media_type.as_deref().unwrap_or(media_type::MANIFEST);
        let stored = self.client.push_document(&repository, kind, &bytes).await?;
        Ok(ResolvedImage { source: image.source.clone(), digest: stored.digest.to_string() })
    }

    /// Where images of executables are pushed to: one place for all apps, so that none is pushed or
    /// pulled twice.
    fn repository(&self) -> Result<Reference> {
        let repository = self.config.repository().ok_or_else(|| {
            let message = "no registry is named that the image could be pushed to; add \
                           ?registry=HOST:PORT to the URL";
            error(ErrorKind::Unsupported, OPERATION, message)
        })?;
        reference(&repository)
    }

    /// Makes an image of an executable or of files and pushes it, where the registry does not have
    /// it.
    async fn push(&self, image: &ImageSpec) -> Result<String> {
        let to = self.repository()?;
        let push = || async {
            if let ImageSpec::Binary(path) = image {
                let (layout, recipe) = recipe(path).await?;
                return self.client.build_and_push(recipe, &layout, &to, &[]).await;
            }
            self.of_files()?.build_as(image, Some(&to)).await
        };
        let mut tries = 1;
        loop {
            match push().await {
                Ok(image) => return Ok(image.digest.to_string()),
                // A registry may lose what two deployers push of one image at the same moment.
                Err(error) if error.kind() == ErrorKind::Corrupt && tries < PUSHES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Names a user where an image does not: pods of the level `restricted` do not run as root.
fn as_somebody(config: &mut Execution) {
    if config.user.is_empty() {
        config.user = format!("{NOBODY}:{NOBODY}");
    }
}

/// An image of files with a user of ours, where it says none and no base can.
fn with_user(files: &ImageFiles) -> ImageSpec {
    let mut files = files.clone();
    if files.base.is_none() && files.user.is_none() {
        files.user = Some(format!("{NOBODY}:{NOBODY}"));
    }
    ImageSpec::files(files)
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

fn unreadable(cause: serde_json::Error) -> deploykit_core::Error {
    error(ErrorKind::Corrupt, OPERATION, "the image cannot be read").because(cause)
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
    async fn build(
        &self,
        app: &AppName,
        image: &ImageSpec,
        events: &EventSender,
    ) -> Result<ResolvedImage> {
        let (config, builder) = (self.config.clone(), self.builder.clone());
        let reporting = Self { config, client: self.client.reporting(image, events), builder };
        reporting.ready(app, image, events).await
    }
}

impl Images {
    async fn ready(
        &self,
        app: &AppName,
        image: &ImageSpec,
        events: &EventSender,
    ) -> Result<ResolvedImage> {
        let (source, digest) = match image {
            ImageSpec::Build(_) => {
                let builder = self.builder.as_ref().ok_or_else(|| unknown(image))?;
                let built = builder.build(app, image, events).await?;
                return self.with_config(&built, as_somebody).await;
            }
            ImageSpec::Binary(path) => (path.display().to_string(), self.push(image).await?),
            ImageSpec::Files(files) => {
                let digest = self.push(&with_user(files)).await?;
                let pushed = ResolvedImage { source: image.to_string(), digest };
                return match files.user {
                    Some(_) => Ok(pushed),
                    None => self.with_config(&pushed, as_somebody).await,
                };
            }
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
    workload: Option<Workload<'_>>,
    image: &ResolvedImage,
) -> String {
    let digest = &image.digest;
    match workload.map(|workload| workload.image) {
        Some(ImageSpec::Binary(_) | ImageSpec::Files(_) | ImageSpec::Build(_)) => {
            let repository = config.repository();
            format!("{}@{digest}", repository.as_deref().unwrap_or("registry.invalid/deploykit"))
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
