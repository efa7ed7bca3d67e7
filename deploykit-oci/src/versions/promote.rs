//! From one repository to another.

use deploykit_core::{ErrorKind, Result};
use serde::Serialize;

use super::list::{attached_to, tagged};
use crate::digest::Digest;
use crate::layout::Layout;
use crate::reference::Reference;
use crate::registry::RegistryClient;

/// What a promotion has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Promotion {
    /// The image's digest, the same in both repositories.
    pub digest: Digest,
    /// What the tag named before, where that was another image.
    pub replaced: Option<Digest>,
    /// How many signatures and other artifacts went along.
    pub attached: usize,
}

/// Makes what `from` names now, by its digest, known as `to`: the same bytes, with all its
/// platforms, its signatures and whatever else refers to it. Within a registry nothing is
/// transferred; what goes to another one goes through the store.
///
/// The tag is written last. Dropped before, the image may be there by its digest alone.
///
/// A signature that names the repository in which it was made counts elsewhere only where a
/// [`Verifier`](crate::sign::Verifier::also_signed_as) says so.
///
/// ```no_run
/// use deploykit_oci::{Layout, Reference, RegistryClient, versions::promote};
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let (client, store) = (RegistryClient::default(), Layout::open("images")?);
/// let tested = Reference::parse_normalized("registry.example/test/web:1.2")?;
/// let released = Reference::parse_normalized("registry.example/shop/web:1.2")?;
/// let done = promote(&client, &tested, &released, &store).await?;
/// println!("{released} is {}", done.digest);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// `NotFound` where there is no such image; otherwise as [`RegistryClient::copy`].
pub async fn promote(
    client: &RegistryClient,
    from: &Reference,
    to: &Reference,
    through: &Layout,
) -> Result<Promotion> {
    let image = client.resolve(from).await?;
    let digest = image.digest;
    let source = from.at(digest.clone());
    let before = match client.resolve(to).await {
        Ok(found) => Some(found.digest),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) => return Err(e),
    };
    client.copy(&source, &to.at(digest.clone()), through).await?;
    let mut attached = 0;
    for referrer in client.referrers(from, &digest, None).await? {
        let place = |repository: &Reference| repository.at(referrer.digest.clone());
        client.copy(&place(from), &place(to), through).await?;
        attached += 1;
    }
    for tag in client.tags(from).await? {
        // Without an ending it is the list of what refers to the image, which the copies wrote.
        if attached_to(&tag) == Some(digest.hex()) && tag.contains('.') {
            client.copy(&tagged(from, &tag)?, &tagged(to, &tag)?, through).await?;
            attached += 1;
        }
    }
    if before.as_ref() != Some(&digest) {
        client.copy(&source, to, through).await?;
    }
    let replaced = before.filter(|before| *before != digest);
    Ok(Promotion { digest, replaced, attached })
}
