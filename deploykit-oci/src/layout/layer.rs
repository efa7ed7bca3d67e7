//! Layers, decompressed.

use std::io::{BufReader, Read};

use deploykit_core::{ErrorKind, Result};
use flate2::read::MultiGzDecoder;

use super::Layout;
use crate::error::{error, on};
use crate::spec::{Descriptor, media_type};

impl Layout {
    /// Reads a layer's tar archive, decompressed. The last piece comes only where the stored blob
    /// is what its digest says. How much comes is not limited.
    ///
    /// # Errors
    /// `NotFound` where it is not there, `Unsupported` where its media type is not known.
    pub fn layer(&self, layer: &Descriptor) -> Result<Box<dyn Read + Send>> {
        let blob = self.reader(&layer.digest)?;
        Ok(match layer.media_type.as_str() {
            media_type::LAYER => Box::new(BufReader::new(blob)),
            media_type::LAYER_GZIP | media_type::DOCKER_LAYER => {
                Box::new(MultiGzDecoder::new(blob))
            }
            media_type::LAYER_ZSTD => Box::new(
                zstd::Decoder::new(blob)
                    .map_err(|cause| on("read a layer", "digest", &layer.digest, cause))?,
            ),
            other => {
                let message = "the media type is not known";
                return Err(error(ErrorKind::Unsupported, "read a layer", message)
                    .with("digest", &layer.digest)
                    .with("media type", other));
            }
        })
    }
}
