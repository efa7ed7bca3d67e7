//! An [`ImageBuilder`] in memory.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::lock;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::sha256_hex;
use crate::model::{AppName, ImageSpec, ResolvedImage};
use crate::orchestrator::{EventSender, ImageBuilder};

/// An [`ImageBuilder`] that finds whatever is asked for, unless told otherwise. The digest is that
/// of the file, where there is one, and of the words that name the image elsewhere. Clones are
/// the same.
#[derive(Clone, Debug, Default)]
pub struct Images(Arc<Mutex<BTreeSet<String>>>);

impl Images {
    /// Lets an image not be found from now on.
    pub fn lose(&self, image: &ImageSpec) {
        lock(&self.0).insert(image.to_string());
    }
}

#[async_trait]
impl ImageBuilder for Images {
    async fn build(
        &self,
        app: &AppName,
        image: &ImageSpec,
        events: &EventSender,
    ) -> Result<ResolvedImage> {
        let source = image.to_string();
        if lock(&self.0).contains(&source) {
            let error = Error::new(ErrorKind::NotFound, "find the image", "there is no such image");
            return Err(error.on("memory").with("app", app).with("image", source));
        }
        let file = match image {
            ImageSpec::Binary(path) => std::fs::read(path).ok(),
            _ => None,
        };
        events.image(image, "ready");
        let hex = sha256_hex(file.as_deref().unwrap_or(source.as_bytes()));
        Ok(ResolvedImage { source, digest: format!("sha256:{hex}") })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_digest_follows_the_content() {
        let (images, app) = (Images::default(), AppName::new("blog").unwrap());
        let file = tempfile::NamedTempFile::new().unwrap();
        let image = ImageSpec::binary(file.path());
        let before = images.build(&app, &image, &EventSender::channel().0).await.unwrap();
        std::fs::write(file.path(), "changed").unwrap();
        let after = images.build(&app, &image, &EventSender::channel().0).await.unwrap();
        assert_ne!(before.digest, after.digest);
        images.lose(&image);
        let lost = images.build(&app, &image, &EventSender::channel().0).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::NotFound);
    }
}
