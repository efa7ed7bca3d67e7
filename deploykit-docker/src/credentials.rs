//! What `docker login` has kept (<https://docs.docker.com/reference/cli/docker/login/>).

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// The name under which the docker command keeps what belongs to Docker Hub.
const HUB: &str = "https://index.docker.io/v1/";

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Config {
    auths: BTreeMap<String, Entry>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "lowercase")]
struct Entry {
    auth: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// The credentials for a registry; nothing where there are none.
pub(crate) fn of(domain: &str) -> Option<DockerCredentials> {
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker");
    let folder = std::env::var_os("DOCKER_CONFIG").map_or_else(home, PathBuf::from);
    let text = std::fs::read(folder.join("config.json")).ok()?;
    let config: Config = serde_json::from_slice(&text).ok()?;
    let server = if domain == "docker.io" { HUB } else { domain };
    let helper = config.cred_helpers.get(server).or(config.creds_store.as_ref());
    if let Some(found) = helper.and_then(|helper| helped(helper, server)) {
        return Some(found);
    }
    let forms = [server.to_owned(), format!("https://{server}"), format!("https://{server}/v1/")];
    let entry = forms.iter().find_map(|form| config.auths.get(form))?;
    let decoded = STANDARD.decode(entry.auth.as_deref()?).ok()?;
    let decoded = String::from_utf8(decoded).ok()?;
    let (username, password) = decoded.split_once(':')?;
    Some(DockerCredentials {
        username: Some(username.to_owned()),
        password: Some(password.to_owned()).filter(|_| entry.identitytoken.is_none()),
        identitytoken: entry.identitytoken.clone(),
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    })
}

/// What a credential helper says
/// (<https://github.com/docker/docker-credential-helpers#development>).
fn helped(helper: &str, server: &str) -> Option<DockerCredentials> {
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(server.as_bytes()).ok()?;
    let said: Helped = serde_json::from_slice(&child.wait_with_output().ok()?.stdout).ok()?;
    let token = said.username == "<token>";
    Some(DockerCredentials {
        username: Some(said.username).filter(|_| !token),
        password: Some(said.secret.clone()).filter(|_| !token),
        identitytoken: Some(said.secret).filter(|_| token),
        serveraddress: Some(server.to_owned()),
        ..DockerCredentials::default()
    })
}
