//! Manifests and indexes.

use deploykit_core::{Error, ErrorKind, Result};
use hyper::Method;
use hyper::header::{ACCEPT, CONTENT_TYPE, HeaderName};

use super::RegistryClient;
use super::call::Call;
use super::failure::Attempt;
use super::transport::{Answer, Payload};
use crate::digest::Digest;
use crate::error::error;
use crate::layout::{LARGEST_DOCUMENT, descriptor};
use crate::reference::Reference;
use crate::spec::{Descriptor, Image, Index, Manifest, Platform, media_type};

const KNOWN: [&str; 4] = [
    media_type::INDEX,
    media_type::MANIFEST,
    media_type::DOCKER_INDEX,
    media_type::DOCKER_MANIFEST,
];
const DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
const RESOLVE: &str = "resolve an image";
const FETCH: &str = "read a manifest";
const STORE: &str = "write a manifest";

/// A document that has been compared with its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// What it is.
    pub descriptor: Descriptor,
    /// The document.
    pub bytes: Vec<u8>,
}

impl RegistryClient {
    /// What a reference names: its digest where it has one, else its tag, else the tag `latest`.
    /// The descriptor may be of an index.
    ///
    /// # Errors
    /// `NotFound` where there is no such image, `Unauthorized` where it may not be seen,
    /// `Unsupported` where it is of an unknown media type; `Unavailable` and `Timeout` when the
    /// budget is spent.
    pub async fn resolve(&self, image: &Reference) -> Result<Descriptor> {
        match self.head(image).await? {
            Some(found) => Ok(found),
            None => Ok(self.document(image).await?.descriptor),
        }
    }

    /// By a request without a body; none where the registry doesn't say enough.
    async fn head(&self, image: &Reference) -> Result<Option<Descriptor>> {
        let call =
            Call::read(RESOLVE, Method::HEAD, image, path(image)).header(ACCEPT, KNOWN.join(", "));
        let attempt = || async {
            let answer = self.call(&call).await?;
            if matches!(answer.status().as_u16(), 400 | 405) {
                return Ok(None);
            }
            let answer = self.expect(&call, answer).await.map_err(|f| f.map(missing))?;
            let digest = answer.header(DIGEST).and_then(|d| d.parse::<Digest>().ok());
            let (Some(digest), Some(size)) = (digest, answer.length()) else { return Ok(None) };
            check_size(image, size)?;
            let Some(kind) = kind(&answer) else { return Ok(None) };
            check_digest(RESOLVE, image, &digest)?;
            Ok(Some(descriptor(check_kind(image, kind)?, digest, size)))
        };
        self.retrying(attempt).await
    }

    /// What a reference names for a platform: of an index the manifest for it, of a manifest that
    /// itself, where it is for it.
    ///
    /// # Errors
    /// As [`RegistryClient::resolve`]; `NotFound` where there is nothing for the platform, with
    /// what there is.
    pub async fn resolve_platform(
        &self,
        image: &Reference,
        platform: &Platform,
    ) -> Result<Descriptor> {
        let document = self.document(image).await?;
        self.choose(image, &document, platform).await
    }

    pub(super) async fn choose(
        &self,
        image: &Reference,
        document: &Document,
        platform: &Platform,
    ) -> Result<Descriptor> {
        let found = if document.is_index() {
            document.index()?.manifests
        } else {
            let config = document.manifest()?.config;
            let bytes = self.blob(image, &config).await?;
            let config: Image = read(media_type::CONFIG, &config.digest, &bytes)?;
            let mut own = document.descriptor.clone();
            own.platform = Some(config.platform);
            vec![own]
        };
        let platforms: Vec<String> =
            found.iter().filter_map(|d| d.platform.as_ref()).map(ToString::to_string).collect();
        let fits = |d: &Descriptor| d.platform.as_ref().is_some_and(|p| p.serves(platform));
        found.into_iter().find(fits).ok_or_else(|| {
            error(ErrorKind::NotFound, RESOLVE, "it is not there for this platform")
                .with("image", image)
                .with("wanted", platform)
                .with("there", platforms.join(", "))
        })
    }

    /// The manifest or index that a reference names.
    ///
    /// # Errors
    /// As [`RegistryClient::resolve`]; `Corrupt` where it is not what its digest says, `Invalid`
    /// where it has more than 4 MiB.
    pub async fn document(&self, image: &Reference) -> Result<Document> {
        let call =
            Call::read(FETCH, Method::GET, image, path(image)).header(ACCEPT, KNOWN.join(", "));
        let attempt = || async {
            let answer = self.call_ok(&call).await.map_err(|f| f.map(missing))?;
            self.read_document(image, answer).await
        };
        self.retrying(attempt).await
    }

    async fn read_document(&self, image: &Reference, mut answer: Answer) -> Attempt<Document> {
        let said = answer.header(DIGEST).map(str::to_owned);
        let kind = kind(&answer).map(str::to_owned);
        if let Some(size) = answer.length() {
            check_size(image, size)?;
        }
        let read = answer.whole(LARGEST_DOCUMENT).await;
        let bytes = read.map_err(|f| f.map(|e| e.with("image", image)))?;
        let Some(bytes) = bytes else { return Err(too_large(image).into()) };
        let found = Digest::of(&bytes);
        check_digest(FETCH, image, &found)?;
        if let Some(said) =
            said.filter(|said| said.starts_with("sha256:") && *said != found.as_str())
        {
            return Err(mismatch(FETCH, image, said, &found).into());
        }
        // Registries that keep no type say `application/json`; the document has it too.
        let kind = kind.filter(|kind| KNOWN.contains(&kind.as_str())).or_else(|| {
            let document: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
            Some(document.get("mediaType")?.as_str()?.to_owned())
        });
        let kind = kind.unwrap_or_default();
        let descriptor = descriptor(check_kind(image, &kind)?, found, bytes.len() as u64);
        Ok(Document { descriptor, bytes })
    }

    /// Stores a manifest or index under a reference's tag, and without one by its digest. What it
    /// names has to be there already. Where it has a subject, that is found by
    /// [`RegistryClient::referrers`] from then on.
    ///
    /// # Errors
    /// As [`RegistryClient::push`].
    pub async fn push_document(
        &self,
        image: &Reference,
        media_type: &str,
        bytes: &[u8],
    ) -> Result<Descriptor> {
        let digest = Digest::of(bytes);
        check_digest(STORE, image, &digest)?;
        check_size(image, bytes.len() as u64)?;
        let name = image.tag().unwrap_or(digest.as_str());
        let mut call = Call::write(STORE, Method::PUT, image, format!("manifests/{name}"))
            .header(CONTENT_TYPE, media_type);
        call.payload = Payload::Bytes(bytes.to_vec().into());
        // The same bytes under the same name again change nothing.
        let answer = self.retrying(|| self.call_ok(&call)).await?;
        let knows_subjects = answer.headers().contains_key(SUBJECT);
        answer.drain().await;
        let stored = descriptor(media_type, digest, bytes.len() as u64);
        if !knows_subjects {
            self.list_referrer(image, &stored, bytes).await?;
        }
        Ok(stored)
    }
}

impl Document {
    /// Whether it is an index.
    pub fn is_index(&self) -> bool {
        is_index(&self.descriptor)
    }

    /// The index that it is.
    ///
    /// # Errors
    /// `Corrupt` where it is none.
    pub fn index(&self) -> Result<Index> {
        read(media_type::INDEX, &self.descriptor.digest, &self.bytes)
    }

    /// The manifest that it is.
    ///
    /// # Errors
    /// `Corrupt` where it is none.
    pub fn manifest(&self) -> Result<Manifest> {
        read(media_type::MANIFEST, &self.descriptor.digest, &self.bytes)
    }
}

pub(super) fn is_index(document: &Descriptor) -> bool {
    matches!(document.media_type.as_str(), media_type::INDEX | media_type::DOCKER_INDEX)
}

/// Reads a document that claims to be of a kind.
pub(super) fn read<T: serde::de::DeserializeOwned>(
    kind: &str,
    digest: &Digest,
    bytes: &[u8],
) -> Result<T> {
    let bad = |message| error(ErrorKind::Corrupt, FETCH, message).with("digest", digest);
    crate::spec::validate(kind, bytes)
        .map_err(|problems| bad("it is not what it should be").with_problems(problems))?;
    serde_json::from_slice(bytes).map_err(|cause| bad("it cannot be understood").because(cause))
}

/// Where a reference's manifest is, within the repository.
pub(super) fn path(image: &Reference) -> String {
    let name = image.digest().map(Digest::as_str).or(image.tag()).unwrap_or("latest");
    format!("manifests/{name}")
}

fn missing(error: Error) -> Error {
    if error.kind() != ErrorKind::NotFound {
        return error;
    }
    let message = "there is no such image; look at its name, and whether it may be seen by you";
    let mut told = crate::error::error(ErrorKind::NotFound, error.operation(), message);
    for (key, value) in error.context() {
        told = told.with(key, value);
    }
    told
}

fn kind(answer: &Answer) -> Option<&str> {
    Some(answer.header(CONTENT_TYPE)?.split(';').next()?.trim())
}

fn check_kind<'a>(image: &Reference, kind: &'a str) -> Result<&'a str> {
    if KNOWN.contains(&kind) {
        return Ok(kind);
    }
    let message = "the media type of what it names is not known; push it anew with a current tool";
    Err(error(ErrorKind::Unsupported, FETCH, message).with("image", image).with("type", kind))
}

fn check_size(image: &Reference, size: u64) -> Result<()> {
    if size > LARGEST_DOCUMENT { Err(too_large(image)) } else { Ok(()) }
}

fn too_large(image: &Reference) -> Error {
    error(ErrorKind::Invalid, FETCH, "a manifest of more than 4 MiB").with("image", image)
}

fn check_digest(operation: &str, image: &Reference, found: &Digest) -> Result<()> {
    match image.digest() {
        Some(wanted) if wanted != found => Err(mismatch(operation, image, wanted, found)),
        _ => Ok(()),
    }
}

fn mismatch(
    operation: &str,
    image: &Reference,
    wanted: impl std::fmt::Display,
    found: &Digest,
) -> Error {
    let message = "what arrived is not what its digest says";
    error(ErrorKind::Corrupt, operation, message)
        .with("image", image)
        .with("wanted", wanted)
        .with("found", found)
}
