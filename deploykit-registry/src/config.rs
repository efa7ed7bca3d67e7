//! Where a registry is, as its URL says.

use std::path::PathBuf;

use deploykit_core::{Error, Problem, Result, SecretValue};

/// Which registry, where, and as whom.
///
/// ```
/// use deploykit_registry::{RegistryConfig, Scheme};
/// let config = RegistryConfig::from_url("etcd://10.0.0.1:2379,10.0.0.2:2379/shop")?;
/// assert_eq!(config.scheme, Scheme::Etcd);
/// assert_eq!(config.hosts, ["10.0.0.1:2379", "10.0.0.2:2379"]);
/// assert_eq!(config.path, "shop");
/// # Ok::<(), deploykit_core::Error>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RegistryConfig {
    /// Which kind of registry.
    pub scheme: Scheme,
    /// Its members, each `host:port`.
    pub hosts: Vec<String>,
    /// What all names begin with, without a slash before or after it; may be empty.
    pub path: String,
    /// The user and the password, where the registry wants them.
    pub user: Option<(String, SecretValue)>,
    /// Whether TLS is spoken: `?tls=true`.
    pub tls: bool,
    /// The certificates that are trusted, as PEM, in place of the system's: `?ca=FILE`.
    pub ca: Option<PathBuf>,
    /// Where instances listen that the DNS knows the addresses of and nothing more: `?port=8080`.
    pub port: Option<u16>,
}

/// The kinds of registries that are on servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Scheme {
    /// `etcd://`
    Etcd,
    /// `zk://`
    ZooKeeper,
    /// `dns://`
    Dns,
}

impl RegistryConfig {
    /// Reads `etcd://[user:password@]host,host/prefix[?tls=true][&ca=FILE]`, or `zk://` alike, or `dns://host/zone[?port=NUMBER]`. Without
    /// a port it is the registry's usual one. `%40` and the like are decoded in user and password.
    ///
    /// # Errors
    /// `Invalid`, with every problem.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut problems = Vec::new();
        let mut problem = |what: String, fix: &str| problems.push(Problem::new("", what, fix));
        let (scheme, rest) = url.split_once("://").unwrap_or((url, ""));
        let (scheme, port) = match scheme {
            "zk" => (Scheme::ZooKeeper, 2181),
            "dns" => (Scheme::Dns, 53),
            "etcd" => (Scheme::Etcd, 2379),
            _ => {
                problem(
                    format!("no registry has the scheme `{scheme}`"),
                    "etcd://, zk:// or dns://",
                );
                (Scheme::Etcd, 0)
            }
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (Some(user), hosts),
            None => (None, authority),
        };
        let user = user.map(|user| {
            let (name, password) = user.split_once(':').unwrap_or((user, ""));
            (decoded(name), SecretValue::new(decoded(password)))
        });
        let with_port = |host: &str| match host.rsplit_once(':') {
            Some((_, after)) if !after.ends_with(']') => host.to_owned(),
            _ => format!("{host}:{port}"),
        };
        let hosts: Vec<_> =
            hosts.split(',').filter(|host| !host.is_empty()).map(with_port).collect();
        if hosts.is_empty() {
            problem("there is no host".into(), "etcd://127.0.0.1:2379/shop");
        }
        for host in &hosts {
            if host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                problem(format!("`{host}` has no port between 0 and 65535"), "host:port");
            }
        }
        let (mut tls, mut ca, mut instances) = (false, None, None);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("tls", "true")) => tls = true,
                Some(("tls", "false")) => tls = false,
                Some(("ca", file)) => (tls, ca) = (true, Some(PathBuf::from(decoded(file)))),
                Some(("port", text)) if scheme == Scheme::Dns => match text.parse() {
                    Ok(port) => instances = Some(port),
                    Err(_) => problem(format!("`{text}` is no port"), "a number below 65536"),
                },
                _ => {
                    problem(format!("`{option}` is not known"), "tls=true, ca=FILE or port=NUMBER")
                }
            }
        }
        if problems.is_empty() {
            let path = path.trim_matches('/').to_owned();
            Ok(Self { scheme, hosts, path, user, tls, ca, port: instances })
        } else {
            Err(Error::invalid("read the URL of a registry", problems))
        }
    }
}

/// With `%41` and the like decoded; what is none stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = (first == b'%').then(|| after.get(..2)).flatten();
        let code = digits.and_then(|d| std::str::from_utf8(d).ok());
        match code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let config = RegistryConfig::from_url("zk://me:p%40ss@a,[::1],b:7/base/x/").unwrap();
        assert_eq!(config.hosts, ["a:2181", "[::1]:2181", "b:7"]);
        assert_eq!((config.path.as_str(), config.tls), ("base/x", false));
        let (name, password) = config.user.unwrap();
        assert_eq!((name.as_str(), password), ("me", SecretValue::new("p@ss")));
        assert!(RegistryConfig::from_url("etcd://a?ca=/x/ca.pem").unwrap().tls);
    }

    #[test]
    fn every_problem_is_told() {
        let error = RegistryConfig::from_url("consul://a:x/?y=1").unwrap_err().to_string();
        assert!(error.contains("no registry has the scheme `consul`"), "{error}");
        assert!(error.contains("`a:x` has no port"), "{error}");
        assert!(error.contains("`y=1` is not known"), "{error}");
        assert!(RegistryConfig::from_url("etcd:///x").is_err());
    }
}
