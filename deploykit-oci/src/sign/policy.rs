//! Signatures as the policy of a deployer.

use async_trait::async_trait;
use deploykit_core::model::{AppName, ImageRef, ImageSpec, ResolvedImage};
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
/// Executables ([`ImageSpec::Binary`]) and images made of files alone ([`ImageSpec::Files`]) are
/// let through: their content is read on the machine that deploys, and nobody can replace it on the
/// way. Where such an image has a base, the base has to be signed, and named with its digest.
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
        match image {
            ImageSpec::Binary(_) => Ok(()),
            ImageSpec::Reference(name) => self.check_image(name, Some(&resolved.digest)).await,
            ImageSpec::Files(files) => match &files.base {
                Some(base) => self.check_image(base, None).await,
                None => Ok(()),
            },
            other => {
                let message = format!("{other} is made in a way that this policy does not know");
                Err(error(ErrorKind::Unauthorized, CHECK, message))
            }
        }
    }
}

impl SignaturePolicy {
    /// Checks an image of a registry with the digest that was found, or with its own.
    async fn check_image(&self, name: &ImageRef, found: Option<&str>) -> Result<()> {
        let refused = |why: String| error(ErrorKind::Unauthorized, CHECK, format!("{name} {why}"));
        let named = Reference::parse_normalized(name.as_str())
            .map_err(|e| error(ErrorKind::Invalid, CHECK, e.to_string()))?;
        if !self.is_place_of(&named) {
            let places = self.places.join(", ");
            let why = format!("is of none of the repositories that are allowed: {places}");
            return Err(refused(why));
        }
        let digest = match found {
            Some(found) => found
                .parse::<Digest>()
                .map_err(|_| refused(format!("has the digest {found}, which no registry gives")))?,
            None => named.digest().cloned().ok_or_else(|| {
                let why = "is the base of an image and may move; name it with its digest";
                refused(why.to_owned())
            })?,
        };
        let verified = self.verifier.verify(&self.client, &named.at(digest)).await;
        verified.map(drop).map_err(|e| about(name.as_str(), e))
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
    use deploykit_core::model::ImageFiles;

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
        let made = |base: Option<&str>| {
            let base = base.map(|base| ImageRef::new(base).unwrap());
            ImageSpec::files(ImageFiles { base, ..Default::default() })
        };
        check(ImageSpec::binary("/bin/true")).await.unwrap();
        check(made(None)).await.unwrap();
        let refused = check(made(Some("nginx:1.27"))).await.unwrap_err();
        let expected = "nginx:1.27 is the base of an image and may move; name it with its digest";
        assert_eq!(refused.message(), expected);
        assert_eq!(
            check(made(Some("team/nginx"))).await.unwrap_err().kind(),
            ErrorKind::Unauthorized
        );
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
