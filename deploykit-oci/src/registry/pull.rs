//! Images from a registry into a store.

use deploykit_core::{ErrorKind, Result};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::RegistryClient;
use super::manifest::{Document, is_index, read};
use crate::error::error;
use crate::layout::Layout;
use crate::reference::Reference;
use crate::spec::{Descriptor, Index, Manifest, Platform, media_type};

const PULL: &str = "pull an image";

impl RegistryClient {
    /// Pulls an image into a store: for one platform, or as it is, an index with all of its
    /// images. What the store has is not asked for. Nothing is tagged.
    ///
    /// # Errors
    /// As [`RegistryClient::resolve_platform`]; `Conflict` where the tag moved meanwhile and what
    /// it named is gone, `Corrupt` where something is not what its digest or its size says.
    pub async fn pull(
        &self,
        image: &Reference,
        layout: &Layout,
        platform: Option<&Platform>,
    ) -> Result<Descriptor> {
        let named = self.resolve(image).await?;
        let root = match self.fetch(image, &named, layout).await {
            Err(e) if e.kind() == ErrorKind::NotFound && image.digest().is_none() => {
                let now = self.resolve(image).await?.digest;
                if now == named.digest {
                    return Err(e);
                }
                let message = "the tag moved while the image was pulled; pull it again";
                return Err(error(ErrorKind::Conflict, PULL, message)
                    .with("image", image)
                    .with("was", &named.digest)
                    .with("is", now));
            }
            fetched => fetched?,
        };
        let mut wanted = match platform {
            Some(platform) => self.choose(image, &root, platform).await?,
            None => root.descriptor.clone(),
        };
        if wanted.digest == root.descriptor.digest {
            self.pull_document(image, &root, layout).await?;
        } else {
            let document = self.fetch(image, &wanted, layout).await?;
            self.pull_document(image, &document, layout).await?;
        }
        if wanted.platform.is_none() && !is_index(&wanted) {
            let manifest = layout.manifest(&wanted.digest)?;
            wanted.platform = layout.image(&manifest.config.digest).ok().map(|i| i.platform);
        }
        Ok(wanted)
    }

    /// A manifest from the store, and where that doesn't have it from the registry.
    async fn fetch(
        &self,
        image: &Reference,
        document: &Descriptor,
        layout: &Layout,
    ) -> Result<Document> {
        if layout.contains(document) {
            let bytes = layout.read(&document.digest)?;
            return Ok(Document { descriptor: document.clone(), bytes });
        }
        let mut fetched = self.document(&image.at(document.digest.clone())).await?;
        if fetched.descriptor.size != document.size {
            let message = "a manifest has another size than is said of it";
            return Err(error(ErrorKind::Corrupt, PULL, message)
                .with("image", image)
                .with("digest", &document.digest)
                .with("wanted", document.size)
                .with("found", fetched.descriptor.size));
        }
        fetched.descriptor.platform.clone_from(&document.platform);
        Ok(fetched)
    }

    /// Pulls what a manifest names, and then stores it: what a store has is whole.
    async fn pull_document(
        &self,
        image: &Reference,
        document: &Document,
        layout: &Layout,
    ) -> Result<()> {
        if document.is_index() {
            for child in document.index()?.manifests {
                if is_index(&child) {
                    let message = "an index within an index is not pulled; name one of them";
                    return Err(error(ErrorKind::Unsupported, PULL, message).with("image", image));
                }
                let child = self.fetch(image, &child, layout).await?;
                self.pull_blobs(image, &child, layout).await?;
            }
            layout.put(&document.bytes)?;
            return Ok(());
        }
        self.pull_blobs(image, document, layout).await
    }

    async fn pull_blobs(
        &self,
        image: &Reference,
        document: &Document,
        layout: &Layout,
    ) -> Result<()> {
        let blobs = blobs(&document.manifest()?);
        stream::iter(blobs)
            .map(|blob| self.download(image, blob, layout))
            .buffer_unordered(self.shared.config.parallel.max(1))
            .try_collect::<()>()
            .await?;
        layout.put(&document.bytes)?;
        Ok(())
    }
}

/// What a manifest names, each once.
pub(super) fn blobs(manifest: &Manifest) -> Vec<Descriptor> {
    let mut blobs: Vec<Descriptor> = vec![manifest.config.clone()];
    for layer in &manifest.layers {
        if blobs.iter().all(|blob| blob.digest != layer.digest) {
            blobs.push(layer.clone());
        }
    }
    blobs
}

/// The manifests that a stored document consists of: an index's, or itself.
pub(super) fn manifests(layout: &Layout, image: &Descriptor) -> Result<Vec<Descriptor>> {
    if !is_index(image) {
        return Ok(vec![image.clone()]);
    }
    let index: Index = read(media_type::INDEX, &image.digest, &layout.read(&image.digest)?)?;
    Ok(index.manifests)
}
