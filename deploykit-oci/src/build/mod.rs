//! Images from files, the same bytes from the same input: whatever the machine, the path, the
//! user, the time and the number of cores.

mod cache;
mod elf;
mod layer;
mod recipe;
mod split;
mod tree;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use deploykit_core::{Error, ErrorKind, Result};
pub use recipe::{Compression, CopyOptions, Recipe};

use crate::digest::Digest;
use crate::error::error;
use crate::layout::{Layout, index};
use crate::spec::{Descriptor, History, Image, Manifest, RootFs, media_type};

/// A layer as it is stored.
#[derive(Clone, Debug)]
struct Layer {
    descriptor: Descriptor,
    /// The digest of its content before compression.
    diff_id: Digest,
    /// Whether it was written now, not found.
    is_new: bool,
}

impl Recipe {
    /// Builds the image into a store, and says what its manifest is. Layers that are there
    /// already, of files whose metadata has not changed since, are not read again.
    ///
    /// It blocks, on all cores, with a few MiB of memory for each.
    ///
    /// # Errors
    /// `NotFound` for a file that has gone meanwhile, `Conflict` for one that changes while it is
    /// read; of the file system else.
    pub fn build(&self, layout: &Layout) -> Result<Descriptor> {
        self.build_telling(layout, &|_| {})
    }

    /// Builds, and tells of each layer that is written as soon as it is stored, from several threads.
    pub(crate) fn build_telling(
        &self,
        layout: &Layout,
        stored: &(dyn Fn(&Descriptor) + Sync),
    ) -> Result<Descriptor> {
        let tree = self.tree.linked();
        let parts = split::split(&tree);
        let next = AtomicUsize::new(0);
        let built: Mutex<BTreeMap<usize, Result<Layer>>> = Mutex::default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..cores.min(parts.len()) {
                scope.spawn(|| {
                    while let Some((number, part)) = {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        parts.get(number).map(|part| (number, part))
                    } {
                        let layer = cache::layer(self, layout, part);
                        match &layer {
                            Ok(layer) if layer.is_new => stored(&layer.descriptor),
                            Ok(_) => {}
                            Err(_) => next.store(parts.len(), Ordering::Relaxed),
                        }
                        built.lock().unwrap_or_else(|e| e.into_inner()).insert(number, layer);
                    }
                });
            }
        });
        let built = built.into_inner().unwrap_or_else(|e| e.into_inner());
        let layers = built.into_values().collect::<Result<Vec<Layer>>>()?;
        self.write_documents(layout, layers)
    }

    fn write_documents(&self, layout: &Layout, layers: Vec<Layer>) -> Result<Descriptor> {
        let created = Some(recipe::rfc3339(self.epoch));
        let mut image = Image {
            created: created.clone(),
            platform: self.platform.clone(),
            config: self.execution.clone(),
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
            history: Vec::new(),
        };
        let mut below = Vec::new();
        if let Some(base) = &self.base {
            image.rootfs = base.image.rootfs.clone();
            image.history = base.image.history.clone();
            below = base.layers.clone();
        }
        for layer in &layers {
            image.rootfs.diff_ids.push(layer.diff_id.clone());
            image.history.push(History {
                created: created.clone(),
                created_by: Some("deploykit".to_owned()),
                empty_layer: false,
            });
        }
        let config = layout.put_document(media_type::CONFIG, &image)?;
        let layers = below.into_iter().chain(layers.into_iter().map(|layer| layer.descriptor));
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers: layers.collect(),
            subject: None,
            annotations: self.annotations.clone(),
        };
        let mut descriptor = layout.put_document(media_type::MANIFEST, &manifest)?;
        descriptor.platform = Some(self.platform.clone());
        Ok(descriptor)
    }
}

/// Joins the images of several platforms, as [`Recipe::build`] returned them, into one.
///
/// # Errors
/// `Invalid` where two are of the same platform or one names none; of the file system else.
pub fn join_platforms(layout: &Layout, images: &[Descriptor]) -> Result<Descriptor> {
    let mut sorted = images.to_vec();
    sorted.sort_by(|a, b| a.platform.cmp(&b.platform));
    let twice = sorted.windows(2).find(|pair| pair[0].platform == pair[1].platform);
    let nameless = sorted.iter().find(|image| image.platform.is_none());
    if let Some(image) = twice.map(|pair| &pair[0]).or(nameless) {
        return Err(bad_index("each image is of a platform of its own", image));
    }
    layout.put_document(media_type::INDEX, &index(sorted))
}

fn bad_index(message: &str, image: &Descriptor) -> Error {
    let platform = image
        .platform
        .as_ref()
        .map_or("none".to_owned(), |p| format!("{}/{}", p.os, p.architecture));
    error(ErrorKind::Invalid, "join platforms", message)
        .with("platform", platform)
        .with("digest", &image.digest)
}
