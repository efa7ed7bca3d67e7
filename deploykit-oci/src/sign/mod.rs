//! Signatures of images with ECDSA on P-256, interoperable with
//! [cosign](https://docs.sigstore.dev/cosign/) both ways: what `cosign sign --key` has signed is
//! verified here, what is signed here is accepted by `cosign verify --key`. Certificates and
//! transparency logs are not looked at: a key is trusted because the caller names it.
//!
//! ```no_run
//! use deploykit_core::SecretValue;
//! use deploykit_oci::sign::{Format, PrivateKey, PublicKey, Verifier, sign};
//! use deploykit_oci::{Reference, RegistryClient};
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = RegistryClient::default();
//! let image = Reference::parse_normalized("registry.example/shop/web:1.2")?;
//! let password = SecretValue::from_env("COSIGN_PASSWORD")?;
//! let key = PrivateKey::read("cosign.key", Some(&password))?;
//! sign(&client, &image, &key, &[Format::Bundle, Format::Tag]).await?;
//!
//! let verified = Verifier::new(PublicKey::read("cosign.pub")?).verify(&client, &image).await?;
//! println!("{} is signed by {}", verified.image, verified.key);
//! # Ok(())
//! # }
//! ```

mod claim;
mod encrypted;
mod judge;
mod key;
mod pem;
mod policy;
mod store;
mod verify;

pub use claim::Format;
use deploykit_core::Result;
pub use key::{PrivateKey, PublicKey};
pub use policy::SignaturePolicy;
pub use verify::{Verified, Verifier};

use crate::reference::Reference;
use crate::registry::RegistryClient;

/// Signs an image where it is, in the given formats, and says which of them were written: where
/// this key has signed the image already, nothing is. What is signed is the digest that `image`
/// names now, under the name of its repository.
///
/// Dropped, it has written whole signatures or none. A signature by tag that another process
/// writes at the same moment may be lost, since registries cannot tell: sign again.
///
/// # Errors
/// `NotFound` where there is no such image, `Unauthorized` where the registry does not allow it;
/// otherwise as [`RegistryClient::push`].
pub async fn sign(
    client: &RegistryClient,
    image: &Reference,
    key: &PrivateKey,
    formats: &[Format],
) -> Result<Vec<Format>> {
    let subject = client.resolve(image).await?;
    let place = image.at(subject.digest.clone());
    let found = store::find(client, &place, &subject.digest).await?;
    let is_ours = Verifier::new(key.public().clone());
    let mut written = Vec::new();
    for format in formats {
        let of_format = found.iter().filter(|found| found.format == *format);
        if is_ours.best(&place, &subject.digest, of_format).is_ok() {
            continue;
        }
        match format {
            Format::Bundle => store::add_bundle(client, &place, &subject, key).await?,
            Format::Tag => store::add_by_tag(client, &place, &subject, key).await?,
        }
        written.push(*format);
    }
    Ok(written)
}
