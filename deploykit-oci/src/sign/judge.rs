//! Whether a signature makes an image trustworthy, and why not.

use std::fmt;

use super::claim::{Claim, Signed};
use super::{Format, PublicKey};
use crate::digest::Digest;

/// Why a signature does not count, the nearest to one that does last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rejection {
    /// It cannot be read.
    Damaged(String),
    /// None of the keys has made it.
    OtherKey,
    /// It was made with that key, of another image.
    OtherImage { key: String, digest: String },
    /// It was made with that key, of this image in another repository.
    OtherRepository { key: String, repository: String },
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged(why) => f.write_str(why),
            Self::OtherKey => f.write_str("it was made with another key"),
            Self::OtherImage { key, digest } => {
                write!(f, "it was made with the key {key}, but of another image: {digest}")
            }
            Self::OtherRepository { key, repository } => write!(
                f,
                "it was made with the key {key}, but for another repository: {repository}"
            ),
        }
    }
}

/// What has to be so.
pub(super) struct Wanted<'a> {
    pub(super) keys: &'a [PublicKey],
    pub(super) image: &'a Digest,
    /// The repositories that a signature may name.
    pub(super) repositories: &'a [String],
}

/// The key that has made the signature, and the repository that it names.
pub(super) fn judge<'a>(
    found: &Signed,
    wanted: &Wanted<'a>,
) -> Result<(&'a PublicKey, Option<String>), Rejection> {
    let made = |key: &&PublicKey| found.signatures.iter().any(|s| key.verifies(&found.message, s));
    let key = wanted.keys.iter().find(made).ok_or(Rejection::OtherKey)?;
    let Claim { digest, repository } = found.claim.clone();
    if digest != wanted.image.as_str() {
        return Err(Rejection::OtherImage { key: key.to_string(), digest });
    }
    match repository {
        Some(repository) if !wanted.repositories.contains(&repository) => {
            Err(Rejection::OtherRepository { key: key.to_string(), repository })
        }
        repository => Ok((key, repository)),
    }
}

/// The keys, for people.
pub(super) fn names(keys: &[PublicKey]) -> String {
    let names: Vec<String> = keys.iter().map(ToString::to_string).collect();
    names.join(", ")
}

/// How a signature is called in messages.
pub(super) fn place(format: Format, digest: &Digest) -> String {
    let hex = digest.hex();
    format!("the signature {} ({format})", hex.get(..12).unwrap_or(hex))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::{PrivateKey, claim};
    use super::*;

    const HERE: &str = "registry.example/shop/web";

    fn signed(format: Format, key: &PrivateKey, image: &Digest, repository: &str) -> Signed {
        match format {
            Format::Bundle => {
                let bundle = claim::bundle(image, repository, key).unwrap();
                claim::read_bundle(&bundle).unwrap().unwrap()
            }
            Format::Tag => {
                let (payload, signature) = claim::payload(image, repository, key).unwrap();
                claim::read_payload(payload, &signature).unwrap()
            }
        }
    }

    #[test]
    fn each_doubt_has_its_own_reason() {
        let (ours, theirs) = (PrivateKey::generate().unwrap(), PrivateKey::generate().unwrap());
        let (image, other) = (Digest::of(b"image"), Digest::of(b"other"));
        let keys = [theirs.public().clone(), ours.public().clone()];
        let here = [HERE.to_owned()];
        let wanted = Wanted { keys: &keys, image: &image, repositories: &here };
        let only_theirs = Wanted { keys: &keys[..1], ..wanted };
        for format in [Format::Bundle, Format::Tag] {
            let good = signed(format, &ours, &image, HERE);
            let (key, repository) = judge(&good, &wanted).unwrap();
            assert_eq!((key, repository.as_deref()), (ours.public(), Some(HERE)));

            assert_eq!(judge(&good, &only_theirs).unwrap_err(), Rejection::OtherKey);
            let mut edited = signed(format, &ours, &image, HERE);
            edited.message.push(b' ');
            assert_eq!(judge(&edited, &wanted).unwrap_err(), Rejection::OtherKey);
            let key = ours.public().to_string();
            assert_eq!(
                judge(&signed(format, &ours, &other, HERE), &wanted).unwrap_err(),
                Rejection::OtherImage { key: key.clone(), digest: other.to_string() }
            );
            let elsewhere = "registry.example/evil/web".to_owned();
            assert_eq!(
                judge(&signed(format, &ours, &image, &elsewhere), &wanted).unwrap_err(),
                Rejection::OtherRepository { key, repository: elsewhere }
            );
        }
    }

    #[test]
    fn no_flipped_bit_lets_a_signature_count_for_something_else() {
        let key = PrivateKey::generate().unwrap();
        let (image, here) = (Digest::of(b"image"), [HERE.to_owned()]);
        let keys = [key.public().clone()];
        let wanted = Wanted { keys: &keys, image: &image, repositories: &here };
        let bundle = claim::bundle(&image, HERE, &key).unwrap();
        let (payload, signature) = claim::payload(&image, HERE, &key).unwrap();
        for bit in 0..8 {
            for place in 0..bundle.len() {
                let mut flipped = bundle.clone();
                flipped[place] ^= 1 << bit;
                if let Ok(Some(read)) = claim::read_bundle(&flipped) {
                    let counts = judge(&read, &wanted).is_ok();
                    assert!(!counts || read.claim.digest == image.as_str(), "{place} {bit}");
                    let same =
                        read.message == claim::read_bundle(&bundle).unwrap().unwrap().message;
                    assert!(!counts || same, "{place} {bit}");
                }
            }
            for place in 0..payload.len() {
                let mut flipped = payload.clone();
                flipped[place] ^= 1 << bit;
                if let Ok(read) = claim::read_payload(flipped, &signature) {
                    assert_eq!(judge(&read, &wanted).unwrap_err(), Rejection::OtherKey);
                }
            }
        }
    }

    #[test]
    fn the_tag_and_the_digest_of_a_claim_are_left_out() {
        let key = PrivateKey::generate().unwrap();
        let image = Digest::of(b"image");
        let named = format!("{HERE}:1@{image}");
        let signed = signed(Format::Tag, &key, &image, &named);
        assert_eq!(signed.claim.repository.as_deref(), Some(HERE));
    }
}
