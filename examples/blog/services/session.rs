//! Session tokens: `name.expiry.signature`, signed with the secret `session-key`.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use hyper::StatusCode;
use hyper::header::AUTHORIZATION;

use crate::Result;
use crate::http::{Refusal, Request, variable};

const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// The key that tokens are signed with.
pub struct SessionKey(hmac::Key);

impl SessionKey {
    /// Reads it from where every backend puts secrets.
    pub fn read() -> Result<Self> {
        let value = std::fs::read(Path::new(&variable("SECRETS_DIR")?).join("session-key"))?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &value)))
    }

    /// A token for somebody who has logged in.
    pub fn sign(&self, name: &str) -> String {
        let claim = format!("{name}.{}", (now() + LIFETIME).as_secs());
        let signature = hex(hmac::sign(&self.0, claim.as_bytes()).as_ref());
        format!("{claim}.{signature}")
    }

    /// Who sent a request.
    pub fn author(&self, request: &Request) -> Result<String, Refusal> {
        let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = header.and_then(|value| value.strip_prefix("Bearer "));
        token.and_then(|token| self.verify(token)).ok_or_else(|| {
            Refusal::new(StatusCode::UNAUTHORIZED, "log in first: no valid session token was sent")
        })
    }

    fn verify(&self, token: &str) -> Option<String> {
        let (claim, signature) = token.rsplit_once('.')?;
        let (name, expiry) = claim.split_once('.')?;
        hmac::verify(&self.0, claim.as_bytes(), &unhex(signature)?).ok()?;
        (now().as_secs() < expiry.parse().ok()?).then(|| name.to_owned())
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
