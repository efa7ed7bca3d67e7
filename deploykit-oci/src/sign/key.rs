//! Keys: ECDSA on P-256 with SHA-256, as PEM files.

use std::fmt;
use std::path::Path;

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, ParsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deploykit_core::{Error, ErrorKind, Result, SecretValue};
use sha2::{Digest as _, Sha256};

use super::{encrypted, pem};
use crate::digest::Digest;
use crate::error::{error, on_path};

const READ: &str = "read a private key";
const READ_PUBLIC: &str = "read a public key";

/// A key that signs. It shows nothing of itself in `Debug`.
///
/// ```
/// use deploykit_oci::sign::PrivateKey;
/// let key = PrivateKey::generate()?;
/// assert!(key.public().to_pem().starts_with("-----BEGIN PUBLIC KEY-----\n"));
/// # Ok::<(), deploykit_core::Error>(())
/// ```
pub struct PrivateKey {
    pair: EcdsaKeyPair,
    public: PublicKey,
}

impl PrivateKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// `Failed` where the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        let failed = |cause| {
            error(ErrorKind::Failed, "make a key", "the system gives no random numbers")
                .because(cause)
        };
        Self::new(pair.map_err(failed)?, "generated".to_owned())
    }

    /// Reads a key of a file: as `cosign generate-key-pair` writes it (then `password` opens it),
    /// or an unencrypted PKCS#8 key as of `openssl genpkey -algorithm EC -pkeyopt
    /// ec_paramgen_curve:P-256`.
    ///
    /// Opening an encrypted key takes about 0.1 s and 64 MiB of memory, since it shall be slow to
    /// guess.
    ///
    /// # Errors
    /// `NotFound` and others of the file system; `Invalid` where the file holds no such key;
    /// `Unauthorized` where it is encrypted and `password` is missing or wrong.
    pub fn read(path: impl AsRef<Path>, password: Option<&SecretValue>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read(path).map_err(on_path(READ, path))?;
        Self::from_pem(&path.display().to_string(), &SecretValue::new(text), password)
    }

    /// Like [`PrivateKey::read`], of the text of such a file; `name` is what messages call it.
    ///
    /// # Errors
    /// Those of [`PrivateKey::read`] that are not of the file system.
    pub fn from_pem(
        name: &str,
        text: &SecretValue,
        password: Option<&SecretValue>,
    ) -> Result<Self> {
        let bad = |kind, message: &str| error(kind, READ, message).with("key", name);
        let form = "it is no key that is known here; wanted is one of cosign or an unencrypted \
                    PKCS#8 key, as PEM";
        let (label, content) =
            pem::decode(text.expose()).ok_or_else(|| bad(ErrorKind::Invalid, form))?;
        let pkcs8 = match label.as_str() {
            "PRIVATE KEY" => content,
            "ENCRYPTED SIGSTORE PRIVATE KEY" | "ENCRYPTED COSIGN PRIVATE KEY" => {
                let message = "it is encrypted; give its password";
                let password = password.ok_or_else(|| bad(ErrorKind::Unauthorized, message))?;
                encrypted::open(&content, password).map_err(|(kind, message)| bad(kind, message))?
            }
            _ => return Err(bad(ErrorKind::Invalid, form)),
        };
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8);
        let message = "it is no ECDSA key on the curve P-256; no other is supported";
        Self::new(pair.map_err(|_| bad(ErrorKind::Invalid, message))?, name.to_owned())
    }

    fn new(pair: EcdsaKeyPair, name: String) -> Result<Self> {
        let der: PublicKeyX509Der<'_> = pair.public_key().as_der().map_err(|cause| {
            error(ErrorKind::Failed, READ, "its public half cannot be written").because(cause)
        })?;
        let public = PublicKey::from_der(name, der.as_ref())?;
        Ok(Self { pair, public })
    }

    /// The half of the key that verifies, under the same name.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// A signature of `message`, as ASN.1.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>> {
        let signature = self.pair.sign(&SystemRandom::new(), message).map_err(|cause| {
            error(ErrorKind::Failed, "sign", "the key could not sign").because(cause)
        })?;
        Ok(signature.as_ref().to_vec())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public)
    }
}

/// A key that verifies. It is shown as its name and the start of its fingerprint.
///
/// ```
/// use deploykit_oci::sign::{PrivateKey, PublicKey};
/// let pem = PrivateKey::generate()?.public().to_pem();
/// let key = PublicKey::from_pem("release.pub", &pem)?;
/// assert!(key.to_string().starts_with("release.pub (sha256:"));
/// # Ok::<(), deploykit_core::Error>(())
/// ```
#[derive(Clone)]
pub struct PublicKey {
    name: String,
    der: Vec<u8>,
    key: ParsedPublicKey,
}

impl PublicKey {
    /// Reads a key of a file, as `cosign generate-key-pair` and `openssl pkey -pubout` write it.
    ///
    /// # Errors
    /// `NotFound` and others of the file system; `Invalid` where the file holds no ECDSA key on
    /// P-256.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path).map_err(on_path(READ_PUBLIC, path))?;
        Self::from_pem(&path.display().to_string(), &text)
    }

    /// Like [`PublicKey::read`], of the text of such a file; `name` is what messages call it.
    ///
    /// # Errors
    /// `Invalid` where the text holds no ECDSA key on P-256.
    pub fn from_pem(name: &str, text: &str) -> Result<Self> {
        match pem::decode(text.as_bytes()) {
            Some((label, der)) if label == "PUBLIC KEY" => Self::from_der(name.to_owned(), &der),
            _ => Err(not_public(name)),
        }
    }

    fn from_der(name: String, der: &[u8]) -> Result<Self> {
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, der);
        let key = key.map_err(|_| not_public(&name))?;
        Ok(Self { name, der: der.to_vec(), key })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The digest of the key: the same wherever the key is read from.
    pub fn fingerprint(&self) -> Digest {
        Digest::of(&self.der)
    }

    /// What bundles call the key.
    pub(super) fn hint(&self) -> String {
        STANDARD.encode(Sha256::digest(&self.der))
    }

    /// The key as the text of a file.
    pub fn to_pem(&self) -> String {
        pem::encode("PUBLIC KEY", &self.der)
    }

    /// Whether `signature` is one of `message` by this key.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(message, signature).is_ok()
    }
}

fn not_public(name: &str) -> Error {
    let message = "it is no public ECDSA key on the curve P-256, as PEM; no other is supported";
    error(ErrorKind::Invalid, READ_PUBLIC, message).with("key", name)
}

impl PartialEq for PublicKey {
    /// Keys are equal whatever they are called.
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for PublicKey {}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fingerprint = self.fingerprint();
        write!(f, "{} (sha256:{})", self.name, fingerprint.hex().get(..12).unwrap_or_default())
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({self})")
    }
}
