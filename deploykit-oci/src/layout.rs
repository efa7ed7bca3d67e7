//! A store of images in a folder, to the OCI image layout
//! (<https://github.com/opencontainers/image-spec/blob/main/image-layout.md>).

mod archive;
mod blob;
mod layer;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

pub use blob::{BlobReader, BlobWriter};
use deploykit_core::{Error, ErrorKind, Result};
use serde::de::DeserializeOwned;
use tempfile::NamedTempFile;

use crate::digest::Digest;
use crate::error::{error, on, on_path};
use crate::spec::{Descriptor, Image, Index, Manifest, media_type};

/// The annotation that names a tag in a layout's index.
const TAG: &str = "org.opencontainers.image.ref.name";
const INDEX: &str = "index.json";
/// What a manifest, an index or a configuration may have at most, as registries hold it too.
pub(crate) const LARGEST_DOCUMENT: u64 = 4 << 20;

/// A folder of images. Blobs are named by their digest and appear whole or not at all; several
/// processes may use one folder at once. What a tag names survives a crash of the machine; what none
/// names is found damaged after one at worst, never taken for whole. Its functions block, on disk
/// only.
///
/// ```
/// # fn main() -> deploykit_core::Result<()> {
/// # let folder = tempfile::tempdir().unwrap();
/// let layout = deploykit_oci::Layout::open(folder.path())?;
/// let blob = layout.put(b"hello")?;
/// assert_eq!(layout.read(&blob)?, b"hello");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Opens a layout, and makes the folder where there is none.
    ///
    /// # Errors
    /// `Corrupt` where the folder is of another version; of the file system else.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let layout = Self { root: root.into() };
        for folder in ["blobs/sha256", ".work", ".cache"] {
            let path = layout.root.join(folder);
            fs::create_dir_all(&path).map_err(on_path("open the image store", &path))?;
        }
        let _lock = layout.lock()?;
        let marker = layout.root.join("oci-layout");
        match fs::read(&marker) {
            Ok(bytes) => crate::spec::validate(media_type::LAYOUT, &bytes).map_err(|problems| {
                error(ErrorKind::Corrupt, "open the image store", "it is no OCI layout 1.0.0")
                    .with("path", marker.display())
                    .with_problems(problems)
            })?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                let empty = index(Vec::new());
                layout.replace(INDEX, &document(&empty)?)?;
                layout.replace("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            }
            Err(e) => return Err(on_path("open the image store", &marker)(e)),
        }
        Ok(layout)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.root
    }

    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    /// Whether a blob is there, with all its bytes.
    pub fn contains(&self, blob: &Descriptor) -> bool {
        self.has(&blob.digest, blob.size)
    }

    /// A blob that a crash of the machine has cut short is not there.
    fn has(&self, digest: &Digest, size: u64) -> bool {
        fs::metadata(self.blob_path(digest)).is_ok_and(|m| m.is_file() && m.len() == size)
    }

    /// Starts a blob whose digest is not known yet.
    ///
    /// # Errors
    /// Of the file system.
    pub fn writer(&self) -> Result<BlobWriter> {
        BlobWriter::new(self)
    }

    /// Stores some bytes.
    ///
    /// # Errors
    /// Of the file system.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest> {
        let mut writer = self.writer()?;
        writer
            .write_all(bytes)
            .map_err(|cause| on("store a blob", "path", self.root.display(), cause))?;
        Ok(writer.finish()?.0)
    }

    /// Stores a document and says what it is.
    pub(crate) fn put_document<T: serde::Serialize>(
        &self,
        media_type: &str,
        value: &T,
    ) -> Result<Descriptor> {
        let bytes = document(value)?;
        let digest = self.put(&bytes)?;
        Ok(descriptor(media_type, digest, bytes.len() as u64))
    }

    /// Reads a blob in pieces. The last piece comes only where the whole is what its digest says.
    ///
    /// # Errors
    /// `NotFound` where it is not there.
    pub fn reader(&self, digest: &Digest) -> Result<BlobReader> {
        let path = self.blob_path(digest);
        let file = File::open(&path).map_err(|cause| on("read a blob", "digest", digest, cause))?;
        Ok(BlobReader::new(file, digest.clone()))
    }

    /// Reads a blob of at most 4 MiB: a manifest, an index, a configuration.
    ///
    /// # Errors
    /// `NotFound` where it is not there, `Corrupt` where it is not what its digest says,
    /// `Invalid` where it is larger.
    pub fn read(&self, digest: &Digest) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let failed = |cause| on("read a blob", "digest", digest, cause);
        self.reader(digest)?.take(LARGEST_DOCUMENT + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LARGEST_DOCUMENT {
            let large = error(ErrorKind::Invalid, "read a blob", "a document of more than 4 MiB");
            return Err(large.with("digest", digest));
        }
        Ok(bytes)
    }

    fn read_document<T: DeserializeOwned>(&self, digest: &Digest, kind: &str) -> Result<T> {
        let bytes = self.read(digest)?;
        crate::spec::validate(kind, &bytes).map_err(|problems| {
            error(ErrorKind::Corrupt, "read a document", "it is not what it should be")
                .with("digest", digest)
                .with("wanted", kind)
                .with_problems(problems)
        })?;
        serde_json::from_slice(&bytes).map_err(|cause| {
            error(ErrorKind::Corrupt, "read a document", "it cannot be understood")
                .with("digest", digest)
                .because(cause)
        })
    }

    /// Reads a manifest.
    ///
    /// # Errors
    /// As [`Layout::read`], and `Corrupt` where the blob is no manifest.
    pub fn manifest(&self, digest: &Digest) -> Result<Manifest> {
        self.read_document(digest, media_type::MANIFEST)
    }

    /// Reads an image's configuration.
    ///
    /// # Errors
    /// As [`Layout::read`], and `Corrupt` where the blob is no configuration.
    pub fn image(&self, digest: &Digest) -> Result<Image> {
        self.read_document(digest, media_type::CONFIG)
    }

    /// Every tag, and what it names.
    ///
    /// # Errors
    /// `Corrupt` where the layout's index cannot be read.
    pub fn tags(&self) -> Result<Vec<(String, Descriptor)>> {
        let tagged = self.index()?.manifests.into_iter();
        Ok(tagged.filter_map(|d| Some((d.annotations.get(TAG)?.clone(), d))).collect())
    }

    /// What a tag names.
    ///
    /// # Errors
    /// `NotFound` where there is no such tag; the message lists those that are.
    pub fn resolve(&self, tag: &str) -> Result<Descriptor> {
        let tags = self.tags()?;
        let known: Vec<&str> = tags.iter().map(|(name, _)| name.as_str()).collect();
        let known = known.join(", ");
        tags.into_iter().find(|(name, _)| name == tag).map(|(_, found)| found).ok_or_else(|| {
            error(ErrorKind::NotFound, "resolve a tag", "there is no such tag")
                .with("tag", tag)
                .with("known", known)
        })
    }

    /// Lets a tag name an image from now on, once all of it is on disk.
    ///
    /// # Errors
    /// `NotFound` where the image is not here; of the file system else.
    pub fn tag(&self, tag: &str, image: &Descriptor) -> Result<()> {
        if !self.contains(image) {
            let missing = error(ErrorKind::NotFound, "tag an image", "it is not in this store");
            return Err(missing.with("tag", tag).with("digest", &image.digest));
        }
        self.sync(image)?;
        let _lock = self.lock()?;
        let mut index = self.index()?;
        index.manifests.retain(|d| d.annotations.get(TAG).is_none_or(|name| name != tag));
        let mut named = image.clone();
        named.annotations.insert(TAG.to_owned(), tag.to_owned());
        index.manifests.push(named);
        self.replace(INDEX, &document(&index)?)
    }

    /// Waits until an image is on disk. Parts that are not here are left out: an index may name
    /// platforms that were not pulled.
    fn sync(&self, image: &Descriptor) -> Result<()> {
        let mut waiting = vec![image.clone()];
        while let Some(blob) = waiting.pop() {
            let path = self.blob_path(&blob.digest);
            let failed = on_path("write the image store", &path);
            match File::open(&path) {
                Ok(file) => file.sync_data().map_err(failed)?,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(failed(e)),
            }
            match blob.media_type.as_str() {
                media_type::INDEX | media_type::DOCKER_INDEX => {
                    let index: Index = self.read_document(&blob.digest, media_type::INDEX)?;
                    waiting.extend(index.manifests);
                }
                media_type::MANIFEST | media_type::DOCKER_MANIFEST => {
                    let manifest = self.manifest(&blob.digest)?;
                    waiting.push(manifest.config);
                    waiting.extend(manifest.layers);
                }
                _ => {}
            }
        }
        let folder = self.root.join("blobs/sha256");
        let failed = on_path("write the image store", &folder);
        File::open(&folder).and_then(|folder| folder.sync_all()).map_err(failed)
    }

    fn index(&self) -> Result<Index> {
        let path = self.root.join(INDEX);
        let bytes = fs::read(&path).map_err(on_path("read the image store", &path))?;
        serde_json::from_slice(&bytes).map_err(|cause| {
            error(ErrorKind::Corrupt, "read the image store", "its index cannot be understood")
                .with("path", path.display())
                .because(cause)
        })
    }

    /// Held while the index is changed: by one process at a time, and free when that is gone.
    fn lock(&self) -> Result<File> {
        let path = self.root.join(".lock");
        let failed = on_path("lock the image store", &path);
        let file = File::options().create(true).append(true).open(&path).map_err(&failed)?;
        file.lock().map_err(&failed)?;
        Ok(file)
    }

    /// Replaces a file at once, and waits until it is on disk.
    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let file = self.written(bytes)?;
        let path = self.root.join(name);
        let failed = on_path("write the image store", &path);
        file.as_file().sync_data().map_err(&failed)?;
        file.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    /// Replaces a file at once that is no loss where a crash of the machine damages it.
    pub(crate) fn remember(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.root.join(name);
        let failed = on_path("write the image store", &path);
        self.written(bytes)?.persist(&path).map_err(|e| failed(e.error))?;
        Ok(())
    }

    fn written(&self, bytes: &[u8]) -> Result<NamedTempFile> {
        let work = self.work();
        let failed = on_path("write the image store", &work);
        let mut file = NamedTempFile::new_in(&work).map_err(&failed)?;
        file.write_all(bytes).map_err(&failed)?;
        Ok(file)
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.root.join(".work")
    }
}

pub(crate) fn descriptor(media_type: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest,
        size,
        platform: None,
        artifact_type: None,
        annotations: Default::default(),
    }
}

/// An index of some manifests.
pub(crate) fn index(manifests: Vec<Descriptor>) -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests,
        annotations: Default::default(),
    }
}

pub(crate) fn document<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|cause| {
        error(ErrorKind::Failed, "write a document", "it cannot be written as JSON").because(cause)
    })
}
