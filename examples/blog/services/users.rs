//! Signs people up and logs them in.

use std::num::NonZeroU32;

use aws_lc_rs::{pbkdf2, rand};
use hyper::{Method, StatusCode};
use serde::{Deserialize, Serialize};

use super::session::{SessionKey, hex, unhex};
use super::{Credentials, Session};
use crate::Result;
use crate::http::{Answer, Handler, Peer, Refusal, Request, json, not_found, parse, segments};

/// What the store keeps of somebody.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub name: String,
    /// `salt:hash`, both in hexadecimal digits.
    pub password: String,
}

pub struct Users {
    store: Peer,
    key: SessionKey,
}

impl Users {
    pub async fn new() -> Result<Self> {
        Ok(Self { store: Peer::of("store").await?, key: SessionKey::read()? })
    }

    async fn sign_up(&self, who: Credentials) -> Result<Answer, Refusal> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if who.name.is_empty() || !who.name.chars().all(plain) || who.password.len() < 8 {
            let rule = "a name is made of a-z and 0-9, a password has at least 8 characters";
            return Err(Refusal::new(StatusCode::BAD_REQUEST, rule));
        }
        let Credentials { name, password } = who;
        let password = blocking(move || hash(&password)).await?;
        let password = password.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e))?;
        let path = format!("/users/{name}");
        let answer = self.store.put(&path, &User { name: name.clone(), password }).await?;
        match answer.status() {
            StatusCode::CREATED => {
                Ok(json(StatusCode::CREATED, &serde_json::json!({"name": name})))
            }
            _ => Ok(answer),
        }
    }

    async fn log_in(&self, who: Credentials) -> Result<Answer, Refusal> {
        let refused = || Refusal::new(StatusCode::UNAUTHORIZED, "wrong name or password");
        // The name becomes a part of a path.
        if !who.name.chars().all(|c| c.is_ascii_alphanumeric()) {
            return Err(refused());
        }
        let answer = self.store.get(&format!("/users/{}", who.name)).await?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Err(refused()),
            _ => return Ok(answer),
        }
        let user: User = serde_json::from_slice(answer.body())
            .map_err(|e| Refusal::new(StatusCode::BAD_GATEWAY, e))?;
        if !blocking(move || matches(&who.password, &user.password)).await? {
            return Err(refused());
        }
        Ok(json(StatusCode::OK, &Session { token: self.key.sign(&user.name) }))
    }
}

impl Handler for Users {
    async fn answer(&self, request: Request) -> Result<Answer, Refusal> {
        match (request.method(), segments(&request).as_slice()) {
            (&Method::POST, ["users"]) => self.sign_up(parse(&request)?).await,
            (&Method::POST, ["sessions"]) => self.log_in(parse(&request)?).await,
            _ => Err(not_found(&request)),
        }
    }
}

/// Hashing takes long on purpose: not on a thread that serves others.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, e))
}

/// What [OWASP](https://cheatsheetseries.owasp.org/cheatsheets/Password_Storage_Cheat_Sheet.html)
/// asks of PBKDF2 with SHA-256.
const ITERATIONS: NonZeroU32 = NonZeroU32::MIN.saturating_add(600_000 - 1);

fn hash(password: &str) -> Result<String> {
    let (mut salt, mut hash) = ([0; 16], [0; 32]);
    rand::fill(&mut salt).map_err(|_| "the system has no random numbers")?;
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password.as_bytes(), &mut hash);
    Ok(format!("{}:{}", hex(&salt), hex(&hash)))
}

fn matches(password: &str, kept: &str) -> bool {
    let Some((salt, hash)) = kept.split_once(':') else { return false };
    let (Some(salt), Some(hash)) = (unhex(salt), unhex(hash)) else { return false };
    let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
    pbkdf2::verify(algorithm, ITERATIONS, &salt, password.as_bytes(), &hash).is_ok()
}
