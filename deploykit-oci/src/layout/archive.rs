//! Docker's archives: what `docker load` takes and `docker save` writes
//! (<https://github.com/moby/docker-image-spec>).

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::Path;

use deploykit_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::{LARGEST_DOCUMENT, Layout, descriptor};
use crate::digest::Digest;
use crate::dockerignore::clean;
use crate::error::{error, on};
use crate::reference::Reference;
use crate::spec::{Descriptor, Manifest, media_type};

const EXPORT: &str = "write a Docker archive";
const IMPORT: &str = "read a Docker archive";
const CONTENTS: &str = "manifest.json";
/// Docker's own have a few for each layer.
const MOST_FILES: usize = 10_000;

/// One image of an archive.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Something of an archive that is stored now.
#[derive(Clone)]
struct Stored {
    digest: Digest,
    size: u64,
    start: [u8; 4],
}

impl Layout {
    /// Writes an image as `docker load` takes it, from the oldest engine on: with uncompressed
    /// layers. The same image is the same bytes.
    ///
    /// # Errors
    /// `NotFound` where the image or a layer is not here, `Corrupt` where a layer is not what the
    /// image's configuration says, of the writer else.
    pub fn export_docker(
        &self,
        image: &Digest,
        names: &[Reference],
        output: impl Write,
    ) -> Result<()> {
        let manifest = self.manifest(image)?;
        let config = self.read(&manifest.config.digest)?;
        let diff_ids = self.image(&manifest.config.digest)?.rootfs.diff_ids;
        if diff_ids.len() != manifest.layers.len() {
            let message = "the configuration names other layers than the manifest";
            return Err(error(ErrorKind::Corrupt, EXPORT, message).with("image", image));
        }
        let item = Item {
            config: format!("{}.json", manifest.config.digest.hex()),
            repo_tags: Some(names.iter().map(Reference::familiar).collect()),
            layers: diff_ids.iter().map(|id| format!("{}.tar", id.hex())).collect(),
        };
        let failed = |cause: io::Error| on(EXPORT, "image", image, cause);
        let mut archive = tar::Builder::new(output);
        append(&mut archive, &item.config, config.len() as u64, config.as_slice())
            .map_err(failed)?;
        for ((layer, diff_id), name) in manifest.layers.iter().zip(&diff_ids).zip(&item.layers) {
            // The size stands before the content, so it is decompressed twice.
            let size = self.check_layer(layer, diff_id)?;
            append(&mut archive, name, size, self.layer(layer)?.take(size)).map_err(failed)?;
        }
        let contents = super::document(&[item])?;
        append(&mut archive, CONTENTS, contents.len() as u64, contents.as_slice())
            .map_err(failed)?;
        let mut output = archive.into_inner().map_err(failed)?;
        output.flush().map_err(failed)
    }

    /// The size of a layer's content in bytes, where that is what `diff_id` says.
    fn check_layer(&self, layer: &Descriptor, diff_id: &Digest) -> Result<u64> {
        let mut hasher = Sha256::new();
        let size = io::copy(&mut self.layer(layer)?, &mut hasher)
            .map_err(|cause| on("read a layer", "digest", &layer.digest, cause))?;
        let found = Digest::finish(hasher);
        if found == *diff_id {
            return Ok(size);
        }
        let message = "the layer's content is not what the image's configuration says";
        Err(error(ErrorKind::Corrupt, "read a layer", message)
            .with("layer", &layer.digest)
            .with("wanted", diff_id)
            .with("found", found))
    }

    /// Takes the images of what `docker save` has written: the names that each had, and its
    /// manifest. Nothing is tagged.
    ///
    /// # Errors
    /// `Invalid` where it is no such archive, `Corrupt` where a layer is not what an image's
    /// configuration says. What had been stored by then stays, unnamed.
    pub fn import_docker(&self, input: impl Read) -> Result<Vec<(Vec<String>, Descriptor)>> {
        let (files, links) = self.store_files(input)?;
        let find = |name: &str| {
            let name = clean(name);
            let target = links.get(&name).unwrap_or(&name);
            files.get(target).cloned().ok_or_else(|| {
                bad_archive("it names a file that it doesn't have").with("file", &name)
            })
        };
        let contents = self.read(&find(CONTENTS)?.digest)?;
        let items: Vec<Item> = serde_json::from_slice(&contents)
            .map_err(|cause| bad_archive("manifest.json cannot be understood").because(cause))?;
        items.into_iter().map(|item| self.import_item(item, &find)).collect()
    }

    fn import_item(
        &self,
        item: Item,
        find: &dyn Fn(&str) -> Result<Stored>,
    ) -> Result<(Vec<String>, Descriptor)> {
        let config = find(&item.config)?;
        let image = self.image(&config.digest)?;
        let mut layers = Vec::new();
        for name in &item.layers {
            let layer = find(name)?;
            let media_type = match layer.start {
                [0x1f, 0x8b, ..] => media_type::LAYER_GZIP,
                [0x28, 0xb5, 0x2f, 0xfd] => media_type::LAYER_ZSTD,
                _ => media_type::LAYER,
            };
            layers.push(descriptor(media_type, layer.digest, layer.size));
        }
        if layers.len() != image.rootfs.diff_ids.len() {
            let message = "an image's configuration names other layers than manifest.json";
            return Err(bad_archive(message).with("image", item.config));
        }
        for (layer, diff_id) in layers.iter().zip(&image.rootfs.diff_ids) {
            self.check_layer(layer, diff_id)?;
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: Some(media_type::MANIFEST.to_owned()),
            artifact_type: None,
            config: descriptor(media_type::CONFIG, config.digest, config.size),
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let mut stored = self.put_document(media_type::MANIFEST, &manifest)?;
        stored.platform = Some(image.platform);
        Ok((item.repo_tags.unwrap_or_default(), stored))
    }

    /// Stores every file of an archive by its digest: their names, and the links between them.
    fn store_files(
        &self,
        input: impl Read,
    ) -> Result<(BTreeMap<String, Stored>, BTreeMap<String, String>)> {
        let damaged = |cause: io::Error| on(IMPORT, "part", "its tar archive", cause);
        let mut files = BTreeMap::new();
        let mut links = BTreeMap::new();
        let mut archive = tar::Archive::new(input);
        for entry in archive.entries().map_err(damaged)? {
            let mut entry = entry.map_err(damaged)?;
            let name = text(&entry.path().map_err(damaged)?)?;
            match entry.header().entry_type() {
                EntryType::Directory => continue,
                EntryType::Regular => {}
                EntryType::Symlink => {
                    // Older engines link to a layer that two images share.
                    let target = entry.link_name().map_err(damaged)?;
                    let target = text(target.as_deref().unwrap_or(Path::new("")))?;
                    let folder = Path::new(&name).parent().unwrap_or(Path::new(""));
                    let target = clean(&text(&folder.join(target))?);
                    links.insert(name, target);
                    continue;
                }
                _ => {
                    let message = "it has something else than files, folders and links";
                    return Err(bad_archive(message).with("file", name));
                }
            }
            if files.len() + links.len() >= MOST_FILES {
                return Err(bad_archive("it has more than 10000 files"));
            }
            let mut start = [0; 4];
            let mut filled = 0;
            while filled < start.len() {
                match entry.read(&mut start[filled..]).map_err(damaged)? {
                    0 => break,
                    read => filled += read,
                }
            }
            let mut blob = self.writer()?;
            let copied = blob.write_all(&start[..filled]);
            copied.and_then(|()| io::copy(&mut entry, &mut blob)).map_err(damaged)?;
            let (digest, size) = blob.finish()?;
            if name == CONTENTS && size > LARGEST_DOCUMENT {
                return Err(bad_archive("manifest.json has more than 4 MiB"));
            }
            files.insert(name, Stored { digest, size, start });
        }
        Ok((files, links))
    }
}

fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    size: u64,
    content: impl Read,
) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(0o644);
    header.set_size(size);
    header.set_mtime(0);
    archive.append_data(&mut header, name, content)
}

fn text(path: &Path) -> Result<String> {
    let text = path.to_str().ok_or_else(|| bad_archive("a name in it is not UTF-8"))?;
    Ok(clean(text))
}

fn bad_archive(message: &str) -> Error {
    error(ErrorKind::Invalid, IMPORT, message)
}
