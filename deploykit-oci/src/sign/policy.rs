//! Signatures as the policy of a deployer.

use async_trait::async_trait;
use deploykit_core::model::{AppName, ImageSpec, ResolvedImage};
use deploykit_core::{Error, ErrorKind, ImagePolicy, Result};

use super::Verifier;
use crate::digest::Digest;
use crate::error::error;
use crate::reference::Reference;
use crate::registry::RegistryClient;

const CHECK: &str = "check the image";

/// Lets images of registries be deployed only where they are signed: by the keys of a
/// [`Verifier`], from any repository or from those that are named.
///
/// Executables ([`ImageSpec::Binary`]) are let through: they are files of the machine that
/// deploys, which nobody could have replaced on the way.
///
/// ```no_run
/// use std::sync::Arc;
/// use deploykit_core::Deployer;
/// use deploykit_oci::RegistryClient;
/// use deploykit_oci::sign::{PublicKey, SignaturePolicy, Verifier};
/// # fn with_policy(deployer: Deployer) -> deploykit_core::Result<Deployer> {
/// let ours = Verifier::new(PublicKey::read("cosign.pub")?);
/// let policy = SignaturePolicy::new(RegistryClient::default(), ours).from("registry.example/shop");
/// let deployer = deployer.with_image_policy(Arc::new(policy));
/// # Ok(deployer)
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct SignaturePolicy {
    client: RegistryClient,
    verifier: Verifier,
    places: Vec<String>,
}

impl SignaturePolicy {
    /// Images of any repository, where they are signed.
    pub fn new(client: RegistryClient, verifier: Verifier) -> Self {
        Self { client, verifier, places: Vec::new() }
    }

    /// Only from here: a registry, a part of one or a repository, like `registry.example`,
    /// `registry.example/shop` or `docker.io/library/nginx`. Named several times, each counts.
    pub fn from(mut self, place: impl Into<String>) -> Self {
        self.places.push(place.into().trim_end_matches('/').to_owned());
        self
    }

    fn is_place_of(&self, image: &Reference) -> bool {
        let name = image.name();
        let is_within = |place: &String| {
            name.strip_prefix(place.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.places.is_empty() || self.places.iter().any(is_within)
    }
}

#[async_trait]
impl ImagePolicy for SignaturePolicy {
    async fn check(
        &self,
        _app: &AppName,
        image: &ImageSpec,
        resolved: &ResolvedImage,
    ) -> Result<()> {
        let name = match image {
            ImageSpec::Binary(_) => return Ok(()),
            ImageSpec::Reference(name) => name.as_str(),
            other => {
                let message = format!("{other} is no image of a registry, so nobody signs it");
                return Err(error(ErrorKind::Unauthorized, CHECK, message));
            }
        };
        let refused = |kind, why: String| error(kind, CHECK, format!("{name} {why}"));
        let named = Reference::parse_normalized(name)
            .map_err(|e| error(ErrorKind::Invalid, CHECK, e.to_string()))?;
        if !self.is_place_of(&named) {
            let places = self.places.join(", ");
            let why = format!("is of none of the repositories that are allowed: {places}");
            return Err(refused(ErrorKind::Unauthorized, why));
        }
        let digest: Digest = resolved.digest.parse().map_err(|_| {
            let why = format!("has the digest {}, which no registry gives", resolved.digest);
            refused(ErrorKind::Unauthorized, why)
        })?;
        let verified = self.verifier.verify(&self.client, &named.at(digest)).await;
        verified.map(drop).map_err(|e| about(name, e))
    }
}

/// Messages of the verifier name the image; those of the registry need not.
fn about(name: &str, cause: Error) -> Error {
    match cause.message().contains(name) || cause.operation() == "verify the image" {
        true => cause,
        false => {
            let message = format!("{name} cannot be verified: {}", cause.message());
            error(cause.kind(), CHECK, message).because(cause)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::PrivateKey;
    use super::*;

    #[tokio::test]
    async fn what_is_not_signed_by_anybody_is_decided_without_a_registry() {
        let key = PrivateKey::generate().unwrap();
        let verifier = Verifier::new(key.public().clone());
        let policy = SignaturePolicy::new(RegistryClient::default(), verifier)
            .from("registry.example/shop")
            .from("docker.io/library/");
        let check = async |image: ImageSpec| {
            let digest = Digest::of(b"image").to_string();
            let resolved = ResolvedImage { source: image.to_string(), digest };
            policy.check(&AppName::new("shop").unwrap(), &image, &resolved).await
        };
        check(ImageSpec::binary("/bin/true")).await.unwrap();
        for name in ["registry.example/shopping/web:1", "evil.example/shop/web", "team/nginx"] {
            let image = ImageSpec::Reference(name.to_owned().try_into().unwrap());
            let refused = check(image).await.unwrap_err();
            let expected = format!(
                "{name} is of none of the repositories that are allowed: registry.example/shop, \
                 docker.io/library"
            );
            assert_eq!(refused.message(), expected);
            assert_eq!(refused.kind(), ErrorKind::Unauthorized);
        }
        let within = |name: &str| policy.is_place_of(&Reference::parse_normalized(name).unwrap());
        assert!(within("nginx:1.27") && within("registry.example/shop/a/b:1"));
    }
}
