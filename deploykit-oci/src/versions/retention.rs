//! What is kept of a repository, and what is not.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroUsize;

use deploykit_core::{Error, ErrorKind, Result, Revision};
use serde::{Deserialize, Serialize};

use super::list::{self, Tags, Version, attached_to, tagged};
use crate::digest::Digest;
use crate::error::error;
use crate::reference::Reference;
use crate::registry::RegistryClient;

const PRUNE: &str = "prune a repository";

/// What would be deleted of a repository, and why the rest stays. Plain data: it can be printed,
/// stored, and applied later by another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PrunePlan {
    /// The repository.
    pub repository: String,
    /// What stays, the newest first.
    pub keep: Vec<Kept>,
    /// What goes, the newest first, each with its signatures.
    pub delete: Vec<Version>,
    /// What every tag named when the plan was made.
    tags: Tags,
}

/// A version that stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Kept {
    /// The version.
    pub version: Version,
    /// Why.
    pub reason: Reason,
}

/// Why a version stays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reason {
    /// It is one of the newest.
    Newest,
    /// A revision that is kept names it, or an image of it.
    Live,
    /// A version that stays has it for one of its platforms.
    Part,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Newest => "one of the newest",
            Self::Live => "a kept revision names it",
            Self::Part => "part of one that stays",
        })
    }
}

/// What has been deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Pruned {
    /// How many versions.
    pub versions: usize,
    /// How many signatures and other artifacts of theirs.
    pub attached: usize,
}

/// The digests of images that revisions name: what must not be deleted while they are kept.
/// [`Deployer::history`](deploykit_core::Deployer::history) has those of an app.
pub fn live_digests<'a>(revisions: impl IntoIterator<Item = &'a Revision>) -> BTreeSet<Digest> {
    let images = revisions.into_iter().flat_map(|revision| revision.app.images.values());
    images.filter_map(|image| image.digest.parse().ok()).collect()
}

/// Says what would be deleted of a repository: all but the `keep` newest
/// [versions](super::versions) and those that are `live` ([`live_digests`]). Deletes nothing.
///
/// ```no_run
/// use std::num::NonZeroUsize;
/// use deploykit_core::Deployer;
/// use deploykit_oci::versions::{live_digests, plan_prune};
/// use deploykit_oci::{Reference, RegistryClient};
/// # async fn example(deployer: Deployer) -> Result<(), Box<dyn std::error::Error>> {
/// let client = RegistryClient::default();
/// let repository = Reference::parse_normalized("registry.example/shop/web")?;
/// let live = live_digests(&deployer.history(&"shop".parse()?).await?);
/// let five = NonZeroUsize::new(5).ok_or("none")?;
/// let plan = plan_prune(&client, &repository, five, &live).await?;
/// println!("{plan}");
/// plan.apply(&client).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`versions`](super::versions).
pub async fn plan_prune(
    client: &RegistryClient,
    repository: &Reference,
    keep: NonZeroUsize,
    live: &BTreeSet<Digest>,
) -> Result<PrunePlan> {
    let tags = list::images(client.tags(repository).await?);
    let (versions, tags) = list::of_tags(client, repository, &tags).await?;
    Ok(decide(repository.name(), versions, tags, keep, live))
}

fn decide(
    repository: String,
    versions: Vec<Version>,
    tags: Tags,
    keep: NonZeroUsize,
    live: &BTreeSet<Digest>,
) -> PrunePlan {
    let reason = |(place, version): (usize, &Version)| {
        let is_live =
            live.contains(&version.digest) || version.images.iter().any(|i| live.contains(i));
        match (place < keep.get(), is_live) {
            (true, _) => Some(Reason::Newest),
            (false, true) => Some(Reason::Live),
            (false, false) => None,
        }
    };
    let mut reasons: Vec<Option<Reason>> = versions.iter().enumerate().map(reason).collect();
    let kept = versions.iter().zip(&reasons).filter(|(_, reason)| reason.is_some());
    let mut parts: BTreeSet<Digest> = live.clone();
    for (version, _) in kept {
        parts.insert(version.digest.clone());
        parts.extend(version.images.iter().cloned());
    }
    for (version, reason) in versions.iter().zip(&mut reasons) {
        if reason.is_none() && parts.contains(&version.digest) {
            *reason = Some(Reason::Part);
        }
    }
    let (mut keep, mut delete) = (Vec::new(), Vec::new());
    for (mut version, reason) in versions.into_iter().zip(reasons) {
        match reason {
            Some(reason) => keep.push(Kept { version, reason }),
            None => {
                version.images.retain(|image| !parts.contains(image));
                delete.push(version);
            }
        }
    }
    PrunePlan { repository, keep, delete, tags }
}

impl PrunePlan {
    /// Whether nothing is to be deleted.
    pub fn is_empty(&self) -> bool {
        self.delete.is_empty()
    }

    /// Deletes what the plan says, unless a tag has moved, come or gone since. Run again after a
    /// failure, a new plan has what is left.
    ///
    /// The registry frees the space when it collects its garbage. A tag that somebody writes while
    /// this runs may lose its image: registries cannot be locked.
    ///
    /// Dropped, it has deleted some of it.
    ///
    /// # Errors
    /// `Conflict` where the tags are not what they were: nothing was deleted. `Unsupported` where
    /// the registry does not delete, `Unauthorized` where it does not let the caller; otherwise as
    /// [`RegistryClient::delete`].
    pub async fn apply(&self, client: &RegistryClient) -> Result<Pruned> {
        let repository = Reference::parse_normalized(&self.repository)
            .map_err(|e| error(ErrorKind::Invalid, PRUNE, e.to_string()))?;
        let all = client.tags(&repository).await?;
        let now = list::resolve(client, &repository, &list::images(all.clone())).await?;
        self.check(&now)?;
        let mut pruned = Pruned::default();
        for version in &self.delete {
            // What is attached goes first: as long as the image is there, a new plan finds both.
            for digest in version.images.iter().chain([&version.digest]) {
                pruned.attached += delete_attached(client, &repository, digest, &all).await?;
            }
            // And an index before what it names.
            for digest in [&version.digest].into_iter().chain(&version.images) {
                delete(client, &repository.at(digest.clone())).await?;
            }
            pruned.versions += 1;
        }
        Ok(pruned)
    }

    fn check(&self, now: &Tags) -> Result<(), Error> {
        let mut changes = Vec::new();
        for (tag, was) in &self.tags {
            match now.get(tag) {
                None => changes.push(format!("{tag} is gone")),
                Some(is) if is != was => changes.push(format!("{tag} has moved")),
                Some(_) => {}
            }
        }
        let come = now.keys().filter(|tag| !self.tags.contains_key(*tag));
        changes.extend(come.map(|tag| format!("{tag} is new")));
        if changes.is_empty() {
            return Ok(());
        }
        let message = format!("the tags changed since: {}; plan again", changes.join(", "));
        Err(error(ErrorKind::Conflict, PRUNE, message).with("repository", &self.repository))
    }
}

/// Deletes what is attached to an image, and says how much that was.
async fn delete_attached(
    client: &RegistryClient,
    repository: &Reference,
    image: &Digest,
    tags: &[String],
) -> Result<usize> {
    let mut deleted = 0;
    for referrer in client.referrers(repository, image, None).await? {
        delete(client, &repository.at(referrer.digest)).await?;
        deleted += 1;
    }
    for tag in tags.iter().filter(|tag| attached_to(tag) == Some(image.hex())) {
        let named = list::resolve(client, repository, std::slice::from_ref(tag)).await?;
        let Some(digest) = named.get(tag) else { continue };
        delete(client, &tagged(repository, tag)?.at(digest.clone())).await?;
        // The list of what refers to the image counts with its entries.
        deleted += usize::from(tag.contains('.'));
    }
    Ok(deleted)
}

/// What is gone already is no error.
async fn delete(client: &RegistryClient, image: &Reference) -> Result<()> {
    match client.delete(image).await {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

impl fmt::Display for PrunePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keep, delete) = (self.keep.len(), self.delete.len());
        write!(f, "{}: keep {keep}, delete {delete}", self.repository)?;
        let name = |version: &Version| {
            let hex = version.digest.hex();
            format!("{} (sha256:{})", version.tags.join(", "), hex.get(..12).unwrap_or(hex))
        };
        for Kept { version, reason } in &self.keep {
            write!(f, "\n  = {}: {reason}", name(version))?;
        }
        for version in &self.delete {
            write!(f, "\n  - {}", name(version))?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn digest(name: &str) -> Digest {
        Digest::of(name.as_bytes())
    }

    fn version(name: &str, images: &[&str]) -> Version {
        let images = images.iter().map(|i| digest(i)).collect();
        let tags = vec![name.to_owned()];
        Version { digest: digest(name), tags, created: None, size: 1, images }
    }

    #[test]
    fn the_newest_the_live_and_their_parts_stay() {
        let versions = vec![
            version("5", &["5-amd64", "arm64"]),
            version("4", &[]),
            version("3", &["3-amd64", "arm64"]),
            version("2", &["2-amd64"]),
            version("5-amd64", &[]),
            version("1", &[]),
        ];
        let tags = versions.iter().map(|v| (v.tags[0].clone(), v.digest.clone())).collect();
        let live = BTreeSet::from([digest("1"), digest("2-amd64")]);
        let two = NonZeroUsize::new(2).unwrap();
        let plan = decide("r.example/web".to_owned(), versions, tags, two, &live);
        let hex = |name: &str| digest(name).hex()[..12].to_owned();
        let expected = format!(
            "r.example/web: keep 5, delete 1\n  = 5 (sha256:{}): one of the newest\n  \
             = 4 (sha256:{}): one of the newest\n  = 2 (sha256:{}): a kept revision names it\n  \
             = 5-amd64 (sha256:{}): part of one that stays\n  \
             = 1 (sha256:{}): a kept revision names it\n  - 3 (sha256:{})",
            hex("5"),
            hex("4"),
            hex("2"),
            hex("5-amd64"),
            hex("1"),
            hex("3"),
        );
        assert_eq!(plan.to_string(), expected);
        assert_eq!(plan.delete[0].images, [digest("3-amd64")], "the other one is part of 5, too");
        let text = serde_json::to_string(&plan).unwrap();
        assert_eq!(serde_json::from_str::<PrunePlan>(&text).unwrap(), plan);
    }

    #[test]
    fn every_change_of_the_tags_is_told() {
        let tags = |pairs: &[(&str, &str)]| -> Tags {
            pairs.iter().map(|(tag, name)| ((*tag).to_owned(), digest(name))).collect()
        };
        let plan = PrunePlan {
            repository: "r.example/web".to_owned(),
            keep: Vec::new(),
            delete: Vec::new(),
            tags: tags(&[("1", "a"), ("2", "b"), ("3", "c")]),
        };
        plan.check(&tags(&[("3", "c"), ("2", "b"), ("1", "a")])).unwrap();
        let refused = plan.check(&tags(&[("1", "a"), ("2", "c"), ("4", "c")])).unwrap_err();
        let expected = "prune a repository: the tags changed since: 2 has moved, 3 is gone, 4 is \
                        new; plan again (backend oci, repository r.example/web)";
        assert_eq!(refused.to_string(), expected);
        assert_eq!(refused.kind(), ErrorKind::Conflict);
    }
}
