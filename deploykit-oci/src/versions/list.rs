//! The versions of a repository.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::time::SystemTime;

use deploykit_core::{ErrorKind, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::error::error;
use crate::reference::Reference;
use crate::registry::{Document, RegistryClient};
use crate::spec::{Image, Manifest};

/// How many requests are made at once.
const PARALLEL: usize = 8;

/// An image of a repository that has a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Version {
    /// Its digest.
    pub digest: Digest,
    /// Its tags, sorted.
    pub tags: Vec<String>,
    /// When it was made, to RFC 3339, where it says so. Images that are built reproducibly often
    /// claim the same moment.
    pub created: Option<String>,
    /// The bytes that its layers have, compressed, of all its platforms.
    pub size: u64,
    /// The images of its platforms, where it is an index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<Digest>,
}

/// The images of a repository that have a tag, the newest first: by the time at which they were
/// made, and among those of the same time by their tags, whose numbers are compared as numbers.
/// Signatures and the like, whose tags begin with the digest of an image, are none.
///
/// Cancel-safe: it changes nothing.
///
/// ```no_run
/// use deploykit_oci::{Reference, RegistryClient, versions::versions};
/// # async fn newest() -> Result<(), Box<dyn std::error::Error>> {
/// let repository = Reference::parse_normalized("registry.example/shop/web")?;
/// for version in versions(&RegistryClient::default(), &repository).await? {
///     println!("{}  {}", version.tags.join(", "), version.digest);
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`RegistryClient::tags`] and [`RegistryClient::document`].
pub async fn versions(client: &RegistryClient, repository: &Reference) -> Result<Vec<Version>> {
    Ok(of_tags(client, repository, &images(client.tags(repository).await?)).await?.0)
}

/// What each tag names.
pub(super) type Tags = BTreeMap<String, Digest>;

/// The tags that are of images.
pub(super) fn images(tags: Vec<String>) -> Vec<String> {
    tags.into_iter().filter(|tag| attached_to(tag).is_none()).collect()
}

/// The digest, in hexadecimal, of the image that a tag is attached to: `sha256-….sig`.
pub(super) fn attached_to(tag: &str) -> Option<&str> {
    let hex = tag.strip_prefix("sha256-")?.split('.').next()?;
    Digest::is_hex(hex).then_some(hex)
}

/// What the tags name. A tag that has gone meanwhile is left out.
pub(super) async fn resolve(
    client: &RegistryClient,
    repository: &Reference,
    tags: &[String],
) -> Result<Tags> {
    let named = stream::iter(tags.to_vec())
        .map(|tag| async move {
            match client.resolve(&tagged(repository, &tag)?).await {
                Ok(found) => Ok(Some((tag, found.digest))),
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
                Err(e) => Err(e),
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<_>>()
        .await?;
    Ok(named.into_iter().flatten().collect())
}

pub(super) fn tagged(repository: &Reference, tag: &str) -> Result<Reference> {
    repository.tagged(tag).map_err(|cause| {
        error(ErrorKind::Failed, "list versions", "the registry tells a tag that is none")
            .with("image", repository)
            .because(cause)
    })
}

/// The versions with these tags, the newest first.
pub(super) async fn of_tags(
    client: &RegistryClient,
    repository: &Reference,
    tags: &[String],
) -> Result<(Vec<Version>, Tags)> {
    let named = resolve(client, repository, tags).await?;
    let mut by_digest: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for (tag, digest) in &named {
        by_digest.entry(digest.clone()).or_default().push(tag.clone());
    }
    let mut versions = stream::iter(by_digest)
        .map(|(digest, tags)| look(client, repository, digest, tags))
        .buffer_unordered(PARALLEL)
        .try_collect::<Vec<_>>()
        .await?;
    versions.sort_by(newest_first);
    Ok((versions, named))
}

async fn look(
    client: &RegistryClient,
    repository: &Reference,
    digest: Digest,
    tags: Vec<String>,
) -> Result<Version> {
    let document = client.document(&repository.at(digest.clone())).await?;
    let mut version = Version { digest, tags, created: None, size: 0, images: Vec::new() };
    let manifests = if document.is_index() {
        let mut manifests = Vec::new();
        for child in document.index()?.manifests {
            // An index may name what is of no platform, such as attestations.
            let child: Document = client.document(&repository.at(child.digest)).await?;
            version.images.push(child.descriptor.digest.clone());
            if !child.is_index() {
                manifests.push(child.manifest()?);
            }
        }
        manifests
    } else {
        vec![document.manifest()?]
    };
    for manifest in &manifests {
        version.size += manifest.layers.iter().map(|layer| layer.size).sum::<u64>();
        let created = created(client, repository, manifest).await?;
        version.created = version.created.max(created);
    }
    Ok(version)
}

/// When an image was made; of an artifact that is no image nothing is known.
async fn created(
    client: &RegistryClient,
    repository: &Reference,
    manifest: &Manifest,
) -> Result<Option<String>> {
    match client.blob(repository, &manifest.config).await {
        Ok(config) => Ok(serde_json::from_slice::<Image>(&config).ok().and_then(|i| i.created)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn newest_first(a: &Version, b: &Version) -> Ordering {
    let made = |version: &Version| -> Option<SystemTime> {
        humantime::parse_rfc3339_weak(version.created.as_deref()?).ok()
    };
    let last = |version: &Version| version.tags.iter().map(|tag| numbered(tag)).max();
    (made(b), last(b), &b.digest).cmp(&(made(a), last(a), &a.digest))
}

/// A tag in the order that people give it: 1.10 after 1.9.
fn numbered(tag: &str) -> Vec<(u64, String)> {
    let mut parts = vec![(0_u64, String::new())];
    let mut was_digit = true;
    for c in tag.chars() {
        let digit = c.to_digit(10);
        if digit.is_some() && !was_digit {
            parts.push((0, String::new()));
        }
        was_digit = digit.is_some();
        if let Some((number, text)) = parts.last_mut() {
            match digit {
                Some(digit) => *number = number.saturating_mul(10).saturating_add(digit.into()),
                None => text.push(c),
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(tags: &[&str], created: Option<&str>) -> Version {
        Version {
            digest: Digest::of(tags.join(",").as_bytes()),
            tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
            created: created.map(str::to_owned),
            size: 0,
            images: Vec::new(),
        }
    }

    #[test]
    fn the_newest_come_first() {
        let epoch = Some("1970-01-01T00:00:00Z");
        let mut found = [
            version(&["v1.9"], epoch),
            version(&["v1.10", "latest"], epoch),
            version(&["odd"], None),
            version(&["v0.1"], Some("2026-11-22T18:00:00.5Z")),
            version(&["v2"], epoch),
        ];
        found.sort_by(newest_first);
        let order: Vec<&str> = found.iter().map(|v| v.tags[0].as_str()).collect();
        assert_eq!(order, ["v0.1", "v2", "v1.10", "v1.9", "odd"]);
    }

    #[test]
    fn signatures_are_no_versions() {
        let hex = "0f".repeat(32);
        let tags = [format!("sha256-{hex}"), format!("sha256-{hex}.sig"), "sha256-1".to_owned()];
        assert_eq!(images(tags.to_vec()), ["sha256-1"]);
    }
}
