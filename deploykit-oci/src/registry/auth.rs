//! Logging in: basic, and with tokens
//! (<https://distribution.github.io/distribution/spec/auth/token/>).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use deploykit_core::{ErrorKind, SecretValue};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, Uri};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::Challenge;
use super::config::RegistryConfig;
use super::credentials::Login;
use super::failure::{Attempt, refused};
use super::transport::{Payload, Transport};
use crate::error::error;

const LOG_IN: &str = "log in to a registry";
/// How long a token is good for that doesn't say it.
const LIFETIME: u64 = 60;
/// The most that a token's answer may have, in bytes.
const MOST: u64 = 256 << 10;

/// What is known of one login: for a registry, and what is done there.
struct Known {
    header: SecretValue,
    until: Option<Instant>,
}

/// What registries have accepted so far.
#[derive(Default)]
pub(super) struct Authorizer {
    known: Mutex<HashMap<(String, String), Known>>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Authorizer {
    /// The header that was good before for this `access` to a registry.
    pub(super) async fn header(&self, host: &str, access: &str) -> Option<SecretValue> {
        let known = self.known.lock().await;
        let known = known.get(&(host.to_owned(), access.to_owned()))?;
        let is_fresh = known.until.is_none_or(|until| Instant::now() < until);
        is_fresh.then(|| known.header.clone())
    }

    /// A header that answers a registry's challenge; none where nobody is logged in. `used` is
    /// what has just been refused.
    pub(super) async fn answer(
        &self,
        transport: &Transport,
        config: &RegistryConfig,
        host: &str,
        access: &str,
        challenges: &[Challenge],
        used: Option<&SecretValue>,
    ) -> Attempt<Option<SecretValue>> {
        // Held while a token is fetched: those who want the same wait for it.
        let mut all = self.known.lock().await;
        let key = (host.to_owned(), access.to_owned());
        if let Some(known) = all.get(&key).filter(|known| Some(&known.header) != used) {
            return Ok(Some(known.header.clone()));
        }
        let login = config.credentials.find(host).await?;
        let find = |scheme| challenges.iter().find(|c| c.scheme == scheme);
        let known = match (find("bearer"), find("basic"), login) {
            (Some(challenge), _, login) => {
                fetch(transport, config, host, access, challenge, login).await?
            }
            (None, Some(_), Some(Login::Password { user, password })) => {
                Known { header: basic(&user, &password), until: None }
            }
            (None, Some(_), _) => return Ok(None),
            (None, None, _) => {
                let wanted: Vec<&str> = challenges.iter().map(|c| c.scheme.as_str()).collect();
                let message = "the registry wants a kind of login that is not known";
                return Err(error(ErrorKind::Unsupported, LOG_IN, message)
                    .with("registry", host)
                    .with("wanted", wanted.join(", "))
                    .into());
            }
        };
        let header = known.header.clone();
        all.insert(key, known);
        Ok((Some(&header) != used).then_some(header))
    }
}

fn basic(user: &str, password: &SecretValue) -> SecretValue {
    let mut pair = format!("{user}:").into_bytes();
    pair.extend_from_slice(password.expose());
    SecretValue::new(format!("Basic {}", STANDARD.encode(SecretValue::new(pair).expose())))
}

async fn fetch(
    transport: &Transport,
    config: &RegistryConfig,
    host: &str,
    access: &str,
    challenge: &Challenge,
    login: Option<Login>,
) -> Attempt<Known> {
    let bad = |message: &str| error(ErrorKind::Failed, LOG_IN, message).with("registry", host);
    let realm = challenge.parameter("realm").unwrap_or_default();
    let uri: Uri = realm.parse().map_err(|_| bad("it names no address for tokens"))?;
    let realm_host = uri.authority().map(|a| a.as_str()).unwrap_or_default();
    let is_safe = match uri.scheme_str() {
        Some("https") => true,
        // A registry that is spoken to in the clear may say so of its tokens, no other one.
        Some("http") => config.plain_http.allows(realm_host) && config.plain_http.allows(host),
        _ => false,
    };
    if !is_safe {
        let message = "its address for tokens is not encrypted; allow plain http for both";
        return Err(bad(message).with("realm", realm).into());
    }
    let mut fields = Vec::new();
    if let Some(service) = challenge.parameter("service") {
        fields.push(("service", service));
    }
    let scopes = challenge.parameter("scope").unwrap_or(access);
    fields.extend(scopes.split(' ').filter(|s| !s.is_empty()).map(|scope| ("scope", scope)));
    let (request, payload) = match &login {
        Some(Login::IdentityToken(token)) => {
            let token = String::from_utf8_lossy(token.expose()).into_owned();
            fields.extend([
                ("grant_type", "refresh_token"),
                ("client_id", "deploykit"),
                ("refresh_token", &token),
            ]);
            let request = Request::post(uri.clone())
                .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
            (request, Payload::Bytes(Bytes::from(form(&fields))))
        }
        login => {
            if let Some(Login::Password { user, .. }) = login {
                fields.push(("account", user));
            }
            let separator = if uri.query().is_some() { '&' } else { '?' };
            let mut request = Request::get(format!("{realm}{separator}{}", form(&fields)));
            if let Some(Login::Password { user, password }) = login {
                request = request.header(AUTHORIZATION, basic(user, password).expose());
            }
            (request, Payload::Empty)
        }
    };
    let mut answer = transport.send(request, &payload, None).await?;
    if !answer.status().is_success() {
        return Err(refused(answer, LOG_IN, host).await.map(|e| e.with("realm", realm)));
    }
    let body = answer.whole(MOST).await?.unwrap_or_default();
    // The parser's message may quote the token, so it is left out.
    let said: TokenAnswer = serde_json::from_slice(&body)
        .map_err(|_| bad("the token cannot be understood").with("realm", realm))?;
    let token = said.token.filter(|t| !t.is_empty()).or(said.access_token);
    let token = token.ok_or_else(|| bad("it gave no token").with("realm", realm))?;
    let lifetime = Duration::from_secs(said.expires_in.unwrap_or(LIFETIME));
    // Some of it passes on the way.
    let until = Instant::now() + lifetime.mul_f64(0.8);
    Ok(Known { header: SecretValue::new(format!("Bearer {token}")), until: Some(until) })
}

fn form(fields: &[(&str, &str)]) -> String {
    let pair = |(name, value): &(&str, &str)| format!("{name}={}", escape(value));
    fields.iter().map(pair).collect::<Vec<_>>().join("&")
}

/// Escapes a value for the query of an address.
pub(super) fn escape(text: &str) -> String {
    use std::fmt::Write as _;
    let mut escaped = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/:,".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}
