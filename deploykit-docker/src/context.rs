//! How the docker command finds its engine
//! (<https://docs.docker.com/engine/manage-resources/contexts/>).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use deploykit_core::{ErrorKind, Result};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::config::{Host, TlsFiles};
use crate::error::error;

const FIND: &str = "find the engine";
const SOCKET: &str = "/var/run/docker.sock";

/// The engine of `DOCKER_HOST`, or of the current context, or at the default socket.
pub(crate) fn current() -> Result<Host> {
    if let Some(text) = variable("DOCKER_HOST") {
        let verify = variable("DOCKER_TLS_VERIFY").is_some();
        let folder = variable("DOCKER_CERT_PATH").map(PathBuf::from).unwrap_or_else(home);
        let tls = (verify || variable("DOCKER_TLS").is_some()).then(|| files(&folder));
        return parse(&text, tls);
    }
    let chosen = variable("DOCKER_CONTEXT").or_else(|| {
        let text = std::fs::read(home().join("config.json")).ok()?;
        serde_json::from_slice::<CommandConfig>(&text).ok()?.current_context
    });
    match chosen.as_deref() {
        None | Some("default" | "") => Ok(Host::Unix(SOCKET.into())),
        Some(name) => named(name),
    }
}

/// The engine of a context.
pub(crate) fn named(name: &str) -> Result<Host> {
    if name == "default" {
        return Ok(Host::Unix(SOCKET.into()));
    }
    let id = Sha256::digest(name).iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
    let contexts = home().join("contexts");
    let path = contexts.join("meta").join(&id).join("meta.json");
    let failed = |kind, message: String| error(kind, FIND, message).with("context", name);
    let text = std::fs::read(&path).map_err(|e| {
        let message = format!("the docker command has no such context ({}: {e})", path.display());
        failed(ErrorKind::NotFound, message)
    })?;
    let context: Context = serde_json::from_slice(&text).map_err(|e| {
        failed(ErrorKind::Corrupt, format!("{} cannot be read: {e}", path.display()))
    })?;
    let endpoint = context.endpoints.get("docker").ok_or_else(|| {
        failed(ErrorKind::Invalid, "the context names no docker engine".to_owned())
    })?;
    let folder = contexts.join("tls").join(&id).join("docker");
    parse(&endpoint.host, folder.is_dir().then(|| files(&folder)))
}

/// A `DOCKER_HOST`.
pub(crate) fn parse(text: &str, tls: Option<TlsFiles>) -> Result<Host> {
    let trimmed = text.trim_end_matches('/');
    match (trimmed.split_once("://"), tls) {
        (Some(("unix", path)), _) => Ok(Host::Unix(path.into())),
        (Some(("tcp" | "http" | "https", address)), Some(tls)) => {
            Ok(Host::Tls(with_port(address, 2376), tls))
        }
        (Some(("https", address)), None) => {
            Ok(Host::Tls(with_port(address, 2376), TlsFiles::default()))
        }
        (Some(("tcp" | "http", address)), None) => Ok(Host::Tcp(with_port(address, 2375))),
        (Some(("ssh", target)), _) => Ok(Host::Ssh(target.to_owned())),
        _ => {
            let message = format!(
                "`{text}` is no address of an engine; write unix:///PATH, tcp://HOST:PORT or ssh://[USER@]HOST"
            );
            Err(error(ErrorKind::Invalid, FIND, message))
        }
    }
}

fn with_port(address: &str, port: u16) -> String {
    match address.rsplit_once(':') {
        Some((_, digits)) if digits.parse::<u16>().is_ok() => address.to_owned(),
        _ => format!("{address}:{port}"),
    }
}

fn files(folder: &Path) -> TlsFiles {
    let there = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    TlsFiles { ca: there("ca.pem"), identity: there("cert.pem").zip(there("key.pem")) }
}

fn home() -> PathBuf {
    let of_user = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".docker");
    variable("DOCKER_CONFIG").map_or_else(of_user, PathBuf::from)
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[derive(Deserialize)]
struct CommandConfig {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Context {
    endpoints: BTreeMap<String, ContextEndpoint>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContextEndpoint {
    host: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn hosts_are_read_as_the_docker_command_reads_them() {
        let host = |text| parse(text, None).unwrap();
        assert_eq!(host("unix:///run/x.sock"), Host::Unix("/run/x.sock".into()));
        assert_eq!(host("tcp://10.0.0.1"), Host::Tcp("10.0.0.1:2375".into()));
        assert_eq!(host("tcp://10.0.0.1:99/"), Host::Tcp("10.0.0.1:99".into()));
        assert_eq!(host("ssh://me@far"), Host::Ssh("me@far".into()));
        let tls = parse("tcp://far.example", Some(TlsFiles::default())).unwrap();
        assert_eq!(tls, Host::Tls("far.example:2376".into(), TlsFiles::default()));
        assert!(parse("npipe:////./pipe/docker", None).is_err());
    }
}
