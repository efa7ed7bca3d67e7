//! Images from one repository to another.

use deploykit_core::Result;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::RegistryClient;
use super::manifest::Document;
use super::pull::blobs;
use super::upload::{Blob, Content};
use crate::layout::Layout;
use crate::reference::Reference;
use crate::spec::Descriptor;

impl RegistryClient {
    /// Copies an image, or an index with all its images, under another name, as it is: with the
    /// same digest. Within one registry nothing is transferred where that lets a repository take
    /// blobs of another one; what it doesn't goes through the store.
    ///
    /// # Errors
    /// As [`RegistryClient::pull`] and [`RegistryClient::push`].
    pub async fn copy(
        &self,
        from: &Reference,
        to: &Reference,
        through: &Layout,
    ) -> Result<Descriptor> {
        let root = self.document(from).await?;
        if root.is_index() {
            for child in root.index()?.manifests {
                let child = self.document(&from.at(child.digest.clone())).await?;
                self.copy_blobs(from, to, &child, through).await?;
                let place = to.at(child.descriptor.digest.clone());
                self.push_document(&place, &child.descriptor.media_type, &child.bytes).await?;
            }
        } else {
            self.copy_blobs(from, to, &root, through).await?;
        }
        self.push_document(to, &root.descriptor.media_type, &root.bytes).await?;
        Ok(root.descriptor)
    }

    async fn copy_blobs(
        &self,
        from: &Reference,
        to: &Reference,
        document: &Document,
        through: &Layout,
    ) -> Result<()> {
        let blobs = blobs(&document.manifest()?);
        stream::iter(blobs)
            .map(|blob| self.copy_blob(from, to, blob, through))
            .buffer_unordered(self.shared.config.parallel.max(1))
            .try_collect::<()>()
            .await
    }

    async fn copy_blob(
        &self,
        from: &Reference,
        to: &Reference,
        blob: Descriptor,
        through: &Layout,
    ) -> Result<()> {
        if self.mount(to, &blob, from).await? {
            return Ok(());
        }
        self.download(from, blob.clone(), through).await?;
        let content = Content::File(through.blob_path(&blob.digest));
        let sent = Blob { digest: blob.digest, size: blob.size, content };
        self.upload(to, &sent, &[]).await?;
        Ok(())
    }
}
