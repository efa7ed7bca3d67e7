//! How registries are reached.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::credentials::Credentials;

/// How registries are reached.
///
/// ```
/// use deploykit_oci::{Credentials, RegistryConfig};
/// let mut config = RegistryConfig::default();
/// config.credentials = Credentials::none().with_password("registry.example", "ci", "hunter2");
/// config.parallel = 2;
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// Whom to log in as; by default what `docker login` has stored.
    pub credentials: Credentials,
    /// Where encryption is left out; by default on this machine alone.
    pub plain_http: PlainHttp,
    /// Files of certificate authorities, as PEM, that are trusted besides those of this machine;
    /// which these are, `SSL_CERT_FILE` and `SSL_CERT_DIR` may say.
    pub ca_files: Vec<PathBuf>,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long nothing may happen: no byte sent or received.
    pub idle_timeout: Duration,
    /// How long a request is tried again before it is given up; any progress starts it anew.
    pub retry_for: Duration,
    /// How many blobs are transferred at once.
    pub parallel: usize,
    /// The most bytes that one request uploads.
    pub chunk: u64,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            credentials: Credentials::docker(),
            plain_http: PlainHttp::default(),
            ca_files: Vec::new(),
            connect_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            retry_for: Duration::from_secs(30),
            parallel: 4,
            chunk: 64 << 20,
        }
    }
}

/// Which registries are spoken to without encryption.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PlainHttp {
    /// None.
    Never,
    /// Those on this machine: `localhost`, 127.0.0.0/8 and `[::1]`.
    #[default]
    Loopback,
    /// Those on this machine, and these, with their ports where they have some.
    AlsoHosts(Vec<String>),
}

impl PlainHttp {
    /// Whether a host, with or without a port, is spoken to without encryption.
    pub(super) fn allows(&self, host: &str) -> bool {
        match self {
            Self::Never => false,
            Self::Loopback => is_loopback(host),
            Self::AlsoHosts(hosts) => is_loopback(host) || hosts.iter().any(|h| h == host),
        }
    }
}

fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_for_this_machine_and_what_is_named() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:80", "127.77.0.3", "[::1]:5000"] {
            assert!(PlainHttp::Loopback.allows(host), "{host}");
            assert!(!PlainHttp::Never.allows(host), "{host}");
        }
        for host in ["docker.io", "localhost.example", "10.0.0.1:5000", "[2001:db8::1]:5000"] {
            assert!(!PlainHttp::Loopback.allows(host), "{host}");
            assert!(PlainHttp::AlsoHosts(vec![host.to_owned()]).allows(host), "{host}");
        }
        assert!(!PlainHttp::AlsoHosts(vec!["a:5000".to_owned()]).allows("a:5001"));
    }
}
