//! Signatures.

use std::path::PathBuf;
use std::sync::Arc;

use deploykit::oci::sign::{Format, PrivateKey, PublicKey, SignaturePolicy, Verifier, sign};
use deploykit::oci::{Reference, RegistryClient};
use deploykit::{Deployer, Result, SecretValue};

use super::{RegistryArguments, reference};
use crate::output::Output;

#[derive(clap::Args)]
pub struct SignArguments {
    /// The image; its digest now is what is signed.
    #[arg(value_parser = reference)]
    name: Reference,
    /// The private key: cosign.key, whose password is taken from COSIGN_PASSWORD, or an
    /// unencrypted PKCS#8 key.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// How the signature is kept: `bundle` as cosign 3 writes it, `tag` as cosign did before;
    /// repeatable [default: both]
    #[arg(long, value_parser = format)]
    format: Vec<Format>,
}

fn format(text: &str) -> Result<Format, serde_json::Error> {
    serde_json::from_value(text.into())
}

impl SignArguments {
    pub async fn run(&self, client: &RegistryClient, output: &Output) -> Result<()> {
        let password = SecretValue::from_env("COSIGN_PASSWORD").ok();
        let key = PrivateKey::read(&self.key, password.as_ref())?;
        let formats = match self.format.as_slice() {
            [] => &[Format::Bundle, Format::Tag],
            formats => formats,
        };
        let name = self.name.clone().pinned();
        let image = name.at(client.resolve(&name).await?.digest);
        let written = sign(client, &image, &key, formats).await?;
        let answer = serde_json::json!({
            "signed": image.to_string(),
            "key": key.public().fingerprint(),
            "written": written,
        });
        output.value(&answer, || match written.is_empty() {
            true => format!("{image} is signed by {} already", key.public()),
            false => format!("signed {image} by {}", key.public()),
        })
    }
}

#[derive(clap::Args)]
pub struct VerifyArguments {
    #[arg(value_parser = reference)]
    name: Reference,
    /// A public key, as PEM; one of several is enough. Repeatable.
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<PathBuf>,
    /// Another repository whose name signatures may have: where the image was promoted from.
    /// Repeatable.
    #[arg(long, value_name = "REPOSITORY", value_parser = reference)]
    also_signed_as: Vec<Reference>,
}

impl VerifyArguments {
    pub async fn run(&self, client: &RegistryClient, output: &Output) -> Result<()> {
        let Some(verifier) = verifier(&self.key, &self.also_signed_as)? else { return Ok(()) };
        let verified = verifier.verify(client, &self.name.clone().pinned()).await?;
        output.value(&verified, || {
            let signed_as = verified.signed_as.iter().map(|name| format!(", as {name}"));
            let signed_as: String = signed_as.collect();
            format!("{} is signed by {}{signed_as}", verified.image, verified.key)
        })
    }
}

/// A verifier with these keys; nothing where there are none.
fn verifier(keys: &[PathBuf], also: &[Reference]) -> Result<Option<Verifier>> {
    let mut verifier: Option<Verifier> = None;
    for path in keys {
        let key = PublicKey::read(path)?;
        verifier = Some(match verifier {
            None => Verifier::new(key),
            Some(verifier) => verifier.with_key(key),
        });
    }
    Ok(verifier.map(|verifier| also.iter().fold(verifier, |v, name| v.also_signed_as(name))))
}

/// What images have to be to be deployed.
#[derive(clap::Args)]
pub struct TrustArguments {
    /// Deploy only images that are signed by this public key; with several, by one of them.
    /// Executables need no signature. Repeatable.
    #[arg(long, value_name = "FILE")]
    verify_key: Vec<PathBuf>,
    /// Deploy only images from here: a registry, a part of one, or a repository. Repeatable.
    #[arg(long, value_name = "REPOSITORY", requires = "verify_key")]
    verify_from: Vec<String>,
    /// Another repository whose name signatures may have: where images were promoted from.
    /// Repeatable.
    #[arg(long, value_name = "REPOSITORY", requires = "verify_key", value_parser = reference)]
    also_signed_as: Vec<Reference>,
    #[command(flatten)]
    registries: RegistryArguments,
}

impl TrustArguments {
    /// A deployer that deploys nothing else.
    pub fn apply(&self, deployer: Deployer) -> Result<Deployer> {
        let Some(verifier) = verifier(&self.verify_key, &self.also_signed_as)? else {
            return Ok(deployer);
        };
        let policy = SignaturePolicy::new(self.registries.client(), verifier);
        let policy = self.verify_from.iter().fold(policy, |policy, place| policy.from(place));
        Ok(deployer.with_image_policy(Arc::new(policy)))
    }
}
