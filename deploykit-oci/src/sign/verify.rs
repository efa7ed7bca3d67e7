//! Verifying an image.

use deploykit_core::{Error, ErrorKind, Result};
use serde::Serialize;

use super::judge::{Rejection, Wanted, judge, names, place};
use super::store::{Found, find};
use super::{Format, PublicKey};
use crate::digest::Digest;
use crate::error::error;
use crate::reference::Reference;
use crate::registry::RegistryClient;

/// Whose signatures count.
///
/// ```
/// use deploykit_oci::sign::{PrivateKey, Verifier};
/// let (ours, theirs) = (PrivateKey::generate()?, PrivateKey::generate()?);
/// let either = Verifier::new(ours.public().clone()).with_key(theirs.public().clone());
/// assert_eq!(either.keys().len(), 2);
/// # Ok::<(), deploykit_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Verifier {
    keys: Vec<PublicKey>,
    also_signed_as: Vec<String>,
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Verified {
    /// The image, by its digest.
    pub image: String,
    /// The name of the key that has signed it.
    pub key: String,
    /// That key's fingerprint.
    pub fingerprint: Digest,
    /// How the signature is kept.
    pub format: Format,
    /// The repository that the signature names; bundles of cosign name none.
    pub signed_as: Option<String>,
}

impl Verifier {
    /// Signatures of this key.
    pub fn new(key: PublicKey) -> Self {
        Self { keys: vec![key], also_signed_as: Vec::new() }
    }

    /// Those of another key too: one of them is enough.
    pub fn with_key(mut self, key: PublicKey) -> Self {
        self.keys.push(key);
        self
    }

    /// Lets signatures count that were made under the name of another repository: the one that an
    /// image was promoted from. Without it a signature that names a repository counts in that one
    /// alone.
    pub fn also_signed_as(mut self, repository: &Reference) -> Self {
        self.also_signed_as.push(repository.name());
        self
    }

    /// The keys.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Looks for a signature of what `image` names now.
    ///
    /// Cancel-safe: it changes nothing.
    ///
    /// # Errors
    /// `NotFound` where there is no such image or no signature of it, `Unauthorized` where none of
    /// its signatures is by one of the keys, of this image and for this repository, `Corrupt`
    /// where they cannot be read: the message names the image and the keys. Otherwise as
    /// [`RegistryClient::document`].
    pub async fn verify(&self, client: &RegistryClient, image: &Reference) -> Result<Verified> {
        let digest = client.resolve(image).await?.digest;
        let place = image.at(digest.clone());
        let found = find(client, &place, &digest).await?;
        self.best(&place, &digest, found.iter())
    }

    /// The first signature that counts, or what is wrong with the one that nearly does.
    pub(super) fn best<'a>(
        &self,
        image: &Reference,
        digest: &Digest,
        found: impl Iterator<Item = &'a Found>,
    ) -> Result<Verified> {
        let mut repositories = vec![image.name()];
        repositories.extend(self.also_signed_as.iter().cloned());
        let wanted = Wanted { keys: &self.keys, image: digest, repositories: &repositories };
        let mut rejected: Vec<(Rejection, String)> = Vec::new();
        for found in found {
            let judged = match &found.signed {
                Ok(signed) => judge(signed, &wanted),
                Err(why) => Err(Rejection::Damaged(why.clone())),
            };
            match judged {
                Ok((key, signed_as)) => {
                    return Ok(Verified {
                        image: image.to_string(),
                        key: key.name().to_owned(),
                        fingerprint: key.fingerprint(),
                        format: found.format,
                        signed_as,
                    });
                }
                Err(rejection) => rejected.push((rejection, place(found.format, &found.digest))),
            }
        }
        Err(self.refusal(image, rejected))
    }

    fn refusal(&self, image: &Reference, rejected: Vec<(Rejection, String)>) -> Error {
        let wanted = match self.keys.as_slice() {
            [key] => format!("wanted is one by the key {key}"),
            keys => format!("wanted is one by one of the keys {}", names(keys)),
        };
        let count = rejected.len();
        let Some((rejection, place)) = rejected.into_iter().max() else {
            let message = format!("{image} has no signature; {wanted}");
            return error(ErrorKind::NotFound, "verify the image", message);
        };
        let kind = match rejection {
            Rejection::Damaged(_) => ErrorKind::Corrupt,
            _ => ErrorKind::Unauthorized,
        };
        let message = match count {
            1 => format!("{place} of {image} does not count: {rejection}; {wanted}"),
            _ => format!(
                "none of the {count} signatures of {image} counts; {place}: {rejection}; {wanted}"
            ),
        };
        error(kind, "verify the image", message)
    }
}
