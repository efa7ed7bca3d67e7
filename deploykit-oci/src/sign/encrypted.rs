//! Cosign's encrypted private keys: a JSON document with the key in a NaCl secret box, whose own
//! key is made of the password by scrypt
//! (<https://github.com/secure-systems-lab/go-securesystemslib/tree/main/encrypted>).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::{Aead, KeyInit};
use crypto_secretbox::{Nonce, XSalsa20Poly1305};
use deploykit_core::{ErrorKind, SecretValue};
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

#[derive(Deserialize)]
struct Encrypted {
    kdf: Derivation,
    cipher: Cipher,
    #[serde(deserialize_with = "base64")]
    ciphertext: Vec<u8>,
}

#[derive(Deserialize)]
struct Derivation {
    name: String,
    params: Cost,
    #[serde(deserialize_with = "base64")]
    salt: Vec<u8>,
}

#[derive(Deserialize, PartialEq)]
struct Cost {
    #[serde(rename = "N")]
    n: u32,
    r: u32,
    p: u32,
}

#[derive(Deserialize)]
struct Cipher {
    name: String,
    #[serde(deserialize_with = "base64")]
    nonce: Vec<u8>,
}

/// The costs that cosign has written, as the logarithm of N; a file cannot ask for more.
const COSTS: [u8; 3] = [15, 16, 17];

/// The PKCS#8 key in it.
pub(super) fn open(
    document: &[u8],
    password: &SecretValue,
) -> Result<Zeroizing<Vec<u8>>, (ErrorKind, &'static str)> {
    let unknown = (ErrorKind::Invalid, "it is not encrypted as cosign does it");
    let document: Encrypted = serde_json::from_slice(document).map_err(|_| unknown)?;
    let cost = |log: &u8| Cost { n: 1 << log, r: 8, p: 1 } == document.kdf.params;
    let log = *COSTS.iter().find(|log| cost(log)).ok_or(unknown)?;
    if document.kdf.name != "scrypt"
        || document.cipher.name != "nacl/secretbox"
        || document.cipher.nonce.len() != 24
    {
        return Err(unknown);
    }
    let mut key = Zeroizing::new([0; 32]);
    let params = scrypt::Params::new(log, 8, 1, key.len()).map_err(|_| unknown)?;
    scrypt::scrypt(password.expose(), &document.kdf.salt, &params, key.as_mut())
        .map_err(|_| unknown)?;
    let cipher = XSalsa20Poly1305::new(key.as_ref().into());
    let opened = cipher.decrypt(Nonce::from_slice(&document.cipher.nonce), &*document.ciphertext);
    let wrong = (ErrorKind::Unauthorized, "its password is another, or the file is damaged");
    opened.map(Zeroizing::new).map_err(|_| wrong)
}

fn base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD.decode(text).map_err(serde::de::Error::custom)
}
