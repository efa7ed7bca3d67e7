//! Where signatures are kept: beside the image, in its repository.

use std::collections::BTreeMap;

use deploykit_core::{ErrorKind, Result};
use serde_json::json;

use super::claim::{self, Signed};
use super::{Format, PrivateKey};
use crate::digest::Digest;
use crate::error::error;
use crate::layout::{descriptor, document};
use crate::reference::Reference;
use crate::registry::RegistryClient;
use crate::spec::{Descriptor, Manifest, media_type};

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// How many signatures of an image are looked at: more are no use, and each is a request.
const MOST: usize = 100;

/// A signature that was found.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) format: Format,
    /// The document's digest.
    pub(super) digest: Digest,
    /// What it says, or why it cannot be read.
    pub(super) signed: Result<Signed, String>,
}

/// The signatures that are kept beside an image, in both formats.
pub(super) async fn find(
    client: &RegistryClient,
    repository: &Reference,
    image: &Digest,
) -> Result<Vec<Found>> {
    let mut found = bundles(client, repository, image).await?;
    found.extend(by_tag(client, repository, image).await?);
    Ok(found)
}

async fn bundles(
    client: &RegistryClient,
    repository: &Reference,
    image: &Digest,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    let listed = client.referrers(repository, image, Some(claim::BUNDLE)).await?;
    for listed in listed.into_iter().take(MOST) {
        let read = async {
            let document = client.document(&repository.at(listed.digest.clone())).await?;
            let manifest = document.manifest()?;
            let layer = manifest.layers.into_iter().find(|l| l.media_type == claim::BUNDLE);
            let missing =
                || error(ErrorKind::Corrupt, "read a signature", "its manifest names no bundle");
            client.blob(repository, &layer.ok_or_else(missing)?).await
        };
        let signed = match readable(read.await)? {
            Ok(bytes) => match claim::read_bundle(&bytes) {
                // Bundles of other things, like attestations.
                Ok(None) => continue,
                Ok(Some(signed)) => Ok(signed),
                Err(why) => Err(why.to_owned()),
            },
            Err(why) => Err(why),
        };
        found.push(Found { format: Format::Bundle, digest: listed.digest, signed });
    }
    Ok(found)
}

async fn by_tag(
    client: &RegistryClient,
    repository: &Reference,
    image: &Digest,
) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for layer in tagged(client, &tag(repository, image)?).await?.into_iter().take(MOST) {
        let Some(signature) = layer.annotations.get(SIGNATURE) else { continue };
        let signed = match readable(client.blob(repository, &layer).await)? {
            Ok(payload) => claim::read_payload(payload, signature).map_err(str::to_owned),
            Err(why) => Err(why),
        };
        found.push(Found { format: Format::Tag, digest: layer.digest, signed });
    }
    Ok(found)
}

/// What is wrong with one signature alone is no reason to look at no other.
fn readable<T>(read: Result<T>) -> Result<Result<T, String>> {
    match read {
        Ok(read) => Ok(Ok(read)),
        Err(e) => match e.kind() {
            ErrorKind::NotFound
            | ErrorKind::Corrupt
            | ErrorKind::Invalid
            | ErrorKind::Unsupported => Ok(Err(e.message().to_owned())),
            _ => Err(e),
        },
    }
}

/// The layers under the tag of an image's signatures; none where there is no such tag.
async fn tagged(client: &RegistryClient, tag: &Reference) -> Result<Vec<Descriptor>> {
    match client.document(tag).await {
        Ok(document) => Ok(document.manifest()?.layers),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

fn tag(repository: &Reference, image: &Digest) -> Result<Reference> {
    repository.tagged(&format!("sha256-{}.sig", image.hex())).map_err(|cause| {
        error(ErrorKind::Invalid, "find signatures", "their tag cannot be named").because(cause)
    })
}

/// Adds a bundle that refers to the image.
pub(super) async fn add_bundle(
    client: &RegistryClient,
    image: &Reference,
    subject: &Descriptor,
    key: &PrivateKey,
) -> Result<()> {
    let bundle = claim::bundle(&subject.digest, &claim::name(image), key)?;
    let layer = put(client, image, claim::BUNDLE, bundle).await?;
    let config = put(client, image, EMPTY, b"{}".to_vec()).await?;
    let about = descriptor(&subject.media_type, subject.digest.clone(), subject.size);
    let manifest = Manifest {
        artifact_type: Some(claim::BUNDLE.to_owned()),
        subject: Some(Box::new(about)),
        annotations: BTreeMap::from([
            ("dev.sigstore.bundle.content".to_owned(), "dsse-envelope".to_owned()),
            ("dev.sigstore.bundle.predicateType".to_owned(), claim::PREDICATE.to_owned()),
        ]),
        ..manifest(config, vec![layer])
    };
    let bytes = document(&manifest)?;
    let place = image.at(Digest::of(&bytes));
    client.push_document(&place, media_type::MANIFEST, &bytes).await?;
    Ok(())
}

/// Adds a payload to those under the image's tag.
pub(super) async fn add_by_tag(
    client: &RegistryClient,
    image: &Reference,
    subject: &Descriptor,
    key: &PrivateKey,
) -> Result<()> {
    let tag = tag(image, &subject.digest)?;
    let (payload, signature) = claim::payload(&subject.digest, &claim::name(image), key)?;
    let mut layer = put(client, image, claim::SIMPLE_SIGNING, payload).await?;
    layer.annotations.insert(SIGNATURE.to_owned(), signature);
    let mut layers = tagged(client, &tag).await?;
    layers.push(layer);
    // What cosign writes here, too: no time, no platform.
    let config = json!({
        "architecture": "",
        "created": "0001-01-01T00:00:00Z",
        "history": layers.iter().map(|_| json!({ "created": "0001-01-01T00:00:00Z" }))
            .collect::<Vec<_>>(),
        "os": "",
        "rootfs": {
            "type": "layers",
            "diff_ids": layers.iter().map(|layer| &layer.digest).collect::<Vec<_>>(),
        },
        "config": {},
    });
    let config = put(client, image, media_type::CONFIG, config.to_string().into_bytes()).await?;
    let bytes = document(&manifest(config, layers))?;
    client.push_document(&tag, media_type::MANIFEST, &bytes).await?;
    Ok(())
}

async fn put(
    client: &RegistryClient,
    repository: &Reference,
    media_type: &str,
    bytes: Vec<u8>,
) -> Result<Descriptor> {
    let size = bytes.len() as u64;
    let digest = client.push_blob(repository, bytes).await?;
    Ok(descriptor(media_type, digest, size))
}

fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    }
}
