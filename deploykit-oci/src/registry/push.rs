//! Images from a store into a registry.

use std::collections::BTreeSet;
use std::sync::Mutex;

use deploykit_core::{ErrorKind, Result};
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::RegistryClient;
use super::pull::{blobs, manifests};
use super::upload::{Blob, Content};
use crate::build::Recipe;
use crate::digest::Digest;
use crate::error::error;
use crate::layout::Layout;
use crate::reference::Reference;
use crate::spec::Descriptor;

const PUSH: &str = "push an image";

impl RegistryClient {
    /// Pushes an image of a store, or an index with all its images. What the repository has is
    /// not sent, and what one of `mount_from` has at the same registry is taken from there. The
    /// tag, which is written last, never names what is not whole; without one the image is there
    /// by its digest.
    ///
    /// Where the tag names the image already, that takes one request.
    ///
    /// # Errors
    /// `NotFound` where the store doesn't have all of it, `Unauthorized` where the registry does
    /// not allow it, `Corrupt` where what arrives is not what its digest says, `Unavailable` and
    /// `Timeout` when the budget is spent. What was pushed by then stays, unnamed.
    pub async fn push(
        &self,
        layout: &Layout,
        image: &Descriptor,
        to: &Reference,
        mount_from: &[&Reference],
    ) -> Result<()> {
        self.push_rest(layout, image, to, mount_from, &Mutex::default()).await
    }

    /// Builds an image into a store and pushes it, each layer as soon as it is built; otherwise
    /// as [`RegistryClient::push`].
    ///
    /// # Errors
    /// As [`Recipe::build`] and [`RegistryClient::push`].
    pub async fn build_and_push(
        &self,
        recipe: Recipe,
        layout: &Layout,
        to: &Reference,
        mount_from: &[&Reference],
    ) -> Result<Descriptor> {
        self.build_and_push_as(recipe, layout, to, mount_from, |_| to.clone()).await
    }

    /// Like [`RegistryClient::build_and_push`], under a name that what is built decides.
    pub(crate) async fn build_and_push_as(
        &self,
        recipe: Recipe,
        layout: &Layout,
        to: &Reference,
        mount_from: &[&Reference],
        name: impl FnOnce(&Descriptor) -> Reference,
    ) -> Result<Descriptor> {
        let (built, layers) = channel();
        let store = layout.clone();
        let builder = tokio::task::spawn_blocking(move || {
            recipe.build_telling(&store, &|layer: &Descriptor| {
                // Where nobody pushes any more, the push has failed and says why.
                let _ = built.send(layer.clone());
            })
        });
        let sent: Mutex<BTreeSet<Digest>> = Mutex::default();
        let pushed = layers
            .map(|layer| self.push_blob_of(layout, layer, to, mount_from, &sent))
            .buffer_unordered(self.shared.config.parallel.max(1))
            .try_collect::<()>()
            .await;
        let image = builder.await.map_err(|cause| {
            error(ErrorKind::Failed, PUSH, "the build broke off").because(cause)
        })??;
        pushed?;
        self.push_rest(layout, &image, &name(&image), mount_from, &sent).await?;
        Ok(image)
    }

    async fn push_rest(
        &self,
        layout: &Layout,
        image: &Descriptor,
        to: &Reference,
        mount_from: &[&Reference],
        sent: &Mutex<BTreeSet<Digest>>,
    ) -> Result<()> {
        let to = &match (to.tag(), to.digest()) {
            (None, None) => to.at(image.digest.clone()),
            _ => to.clone(),
        };
        if let Some(wanted) = to.digest().filter(|wanted| **wanted != image.digest) {
            let message = "the reference names another digest than the image has";
            return Err(error(ErrorKind::Invalid, PUSH, message)
                .with("wanted", wanted)
                .with("found", &image.digest));
        }
        match self.resolve(to).await {
            Ok(found) if found.digest == image.digest => return Ok(()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Unsupported) => {}
            Err(e) => return Err(e),
        }
        for manifest in manifests(layout, image)? {
            let named = layout.manifest(&manifest.digest)?;
            stream::iter(blobs(&named))
                .map(|blob| self.push_blob_of(layout, blob, to, mount_from, sent))
                .buffer_unordered(self.shared.config.parallel.max(1))
                .try_collect::<()>()
                .await?;
            if manifest.digest != image.digest {
                let bytes = layout.read(&manifest.digest)?;
                let place = to.at(manifest.digest.clone());
                self.push_document(&place, &manifest.media_type, &bytes).await?;
            }
        }
        let bytes = layout.read(&image.digest)?;
        self.push_document(to, &image.media_type, &bytes).await?;
        Ok(())
    }

    /// Pushes a blob of a store, unless it has been.
    async fn push_blob_of(
        &self,
        layout: &Layout,
        blob: Descriptor,
        to: &Reference,
        mount_from: &[&Reference],
        sent: &Mutex<BTreeSet<Digest>>,
    ) -> Result<()> {
        let is_sent = || sent.lock().unwrap_or_else(|e| e.into_inner());
        if is_sent().contains(&blob.digest) {
            return Ok(());
        }
        let path = layout.blob_path(&blob.digest);
        if !layout.contains(&blob) {
            let message = "the store doesn't have all of it; pull or build it again";
            return Err(error(ErrorKind::NotFound, PUSH, message).with("digest", &blob.digest));
        }
        let digest = blob.digest.clone();
        let blob = Blob { digest: blob.digest, size: blob.size, content: Content::File(path) };
        self.upload(to, &blob, mount_from).await?;
        is_sent().insert(digest);
        Ok(())
    }
}

/// A channel from threads to a stream.
fn channel() -> (UnboundedSender<Descriptor>, impl Stream<Item = Descriptor> + Unpin) {
    let (sender, receiver) = unbounded_channel();
    let next = async |mut receiver: UnboundedReceiver<Descriptor>| {
        let layer = receiver.recv().await?;
        Some((layer, receiver))
    };
    (sender, Box::pin(stream::unfold(receiver, next)))
}
