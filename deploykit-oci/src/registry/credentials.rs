//! Whom to log in as: what `docker login` stores
//! (<https://docs.docker.com/reference/cli/docker/login/>).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deploykit_core::{Error, ErrorKind, Result, SecretValue};
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use crate::error::error;

const READ: &str = "read the registry's credentials";
/// How long a credential helper may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// The user name by which a helper says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Whom to log in as, for each registry.
///
/// ```
/// let docker = deploykit_oci::Credentials::docker();
/// let own = docker.with_password("registry.example:5000", "ci", "hunter2");
/// assert!(!format!("{own:?}").contains("hunter2"));
/// ```
#[derive(Clone, Debug)]
pub struct Credentials {
    own: BTreeMap<String, Login>,
    file: Option<PathBuf>,
}

/// How to log in to one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Login {
    Password { user: String, password: SecretValue },
    IdentityToken(SecretValue),
}

/// The file `config.json` of Docker.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DockerConfig {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// What a helper says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

impl Credentials {
    /// Nobody, anywhere.
    pub fn none() -> Self {
        Self { own: BTreeMap::new(), file: None }
    }

    /// What `docker login` has stored: in `config.json` of `$DOCKER_CONFIG`, else of `~/.docker`,
    /// and in the credential helpers that it names. Where there is no file, nobody.
    pub fn docker() -> Self {
        let folder = std::env::var_os("DOCKER_CONFIG").filter(|f| !f.is_empty()).map(PathBuf::from);
        let folder = folder.or_else(|| Some(std::env::home_dir()?.join(".docker")));
        Self { own: BTreeMap::new(), file: folder.map(|f| f.join("config.json")) }
    }

    /// What a file of the same form as Docker's `config.json` says.
    pub fn from_file(path: impl Into<PathBuf>) -> Self {
        Self { own: BTreeMap::new(), file: Some(path.into()) }
    }

    /// The same, but a user and a password for one registry.
    pub fn with_password(
        mut self,
        registry: impl Into<String>,
        user: impl Into<String>,
        password: impl Into<String>,
    ) -> Self {
        let password = SecretValue::new(password.into());
        self.own.insert(registry.into(), Login::Password { user: user.into(), password });
        self
    }

    /// The login of a registry, asked anew each time: it may have changed.
    pub(super) async fn find(&self, host: &str) -> Result<Option<Login>> {
        if let Some(login) = self.own.get(host) {
            return Ok(Some(login.clone()));
        }
        let Some(file) = &self.file else { return Ok(None) };
        let bytes = match tokio::fs::read(file).await {
            Ok(bytes) => bytes,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(crate::error::on_path(READ, file)(cause)),
        };
        // The parser's message may quote the file, so it is left out.
        let config: DockerConfig = serde_json::from_slice(&bytes).map_err(|cause| {
            let at = format!("line {} is not what it should be", cause.line());
            bad(file, &at)
        })?;
        let key = |name: &&String| names(name, host);
        if let Some((name, helper)) = config.cred_helpers.iter().find(|(name, _)| key(name)) {
            return ask(helper, name).await;
        }
        let entry = config.auths.iter().find(|(name, _)| key(name));
        if let Some(store) = &config.creds_store {
            let server = entry.map_or_else(|| server(host), |(name, _)| name.clone());
            if let Some(login) = ask(store, &server).await? {
                return Ok(Some(login));
            }
        }
        entry.map_or(Ok(None), |(_, entry)| entry.login().map_err(|what| bad(file, what)))
    }
}

impl Entry {
    fn login(&self) -> Result<Option<Login>, &'static str> {
        if let Some(token) = self.identitytoken.as_ref().filter(|token| !token.is_empty()) {
            return Ok(Some(Login::IdentityToken(SecretValue::new(token.as_str()))));
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.is_empty()) {
            let wrong = "an `auth` is not the base64 of user:password; log in again";
            let text = STANDARD.decode(auth.trim_end_matches('\0')).map_err(|_| wrong)?;
            let text = String::from_utf8(text).map_err(|_| wrong)?;
            let (user, password) = text.split_once(':').ok_or(wrong)?;
            let password = SecretValue::new(password.trim_end_matches('\0'));
            return Ok(Some(Login::Password { user: user.to_owned(), password }));
        }
        Ok(self
            .username
            .clone()
            .zip(self.password.as_deref())
            .map(|(user, password)| Login::Password { user, password: SecretValue::new(password) }))
    }
}

/// Whether an entry's name, which may be an address, is that of a registry.
fn names(name: &str, host: &str) -> bool {
    let name = name.split_once("://").map_or(name, |(_, rest)| rest);
    let name = name.split('/').next().unwrap_or_default();
    let is_hub =
        |name: &str| matches!(name, "docker.io" | "index.docker.io" | "registry-1.docker.io");
    name == host || (is_hub(name) && is_hub(host))
}

/// The name by which Docker stores a registry.
fn server(host: &str) -> String {
    match host {
        "docker.io" => "https://index.docker.io/v1/".to_owned(),
        host => host.to_owned(),
    }
}

fn bad(file: &Path, what: &str) -> Error {
    error(ErrorKind::Invalid, READ, what).with("path", file.display())
}

/// Asks a credential helper (<https://github.com/docker/docker-credential-helpers>).
async fn ask(helper: &str, server: &str) -> Result<Option<Login>> {
    let program = format!("docker-credential-{helper}");
    let failed = |kind, message: &str| {
        error(kind, READ, message).with("helper", &program).with("registry", server)
    };
    let run = async {
        let mut child = tokio::process::Command::new(&program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // A helper that doesn't read has its own answer ready.
            let _ = input.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(PATIENCE, run)
        .await
        .map_err(|_| failed(ErrorKind::Timeout, "the credential helper did not answer in 30 s"))?
        .map_err(|cause| {
            let message = "the credential helper cannot be run; install it or log in again";
            failed(ErrorKind::NotFound, message).because(cause)
        })?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout);
        if said.contains("credentials not found") {
            return Ok(None);
        }
        let status = output.status;
        return Err(failed(ErrorKind::Failed, "the credential helper failed").with("exit", status));
    }
    let answer: Answer = serde_json::from_slice(&output.stdout).map_err(|_| {
        failed(ErrorKind::Invalid, "the credential helper's answer cannot be understood")
    })?;
    let secret = SecretValue::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        TOKEN_USER => Login::IdentityToken(secret),
        user => Login::Password { user: user.to_owned(), password: secret },
    }))
}
