//! Which engine, and where the agent's program is.

use std::path::PathBuf;

use deploykit_core::{Error, Problem, Result};

use crate::error::BACKEND;

/// Which Docker engine is used, and with which agent.
///
/// ```
/// use deploykit_docker::{DockerConfig, Host};
/// let config = DockerConfig::from_url("docker:///run/docker.sock")?;
/// assert_eq!(config.host, Host::Unix("/run/docker.sock".into()));
/// assert_eq!(DockerConfig::from_url("docker://ssh/me@far.example")?.host.to_string(), "ssh://me@far.example");
/// # Ok::<(), deploykit_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DockerConfig {
    /// Where the engine is.
    pub host: Host,
    /// The program `deploykit-agent`. Absent, it is what `DEPLOYKIT_AGENT` names, or is looked for
    /// beside this program and on `PATH`.
    pub agent: Option<PathBuf>,
    /// Whether the agents of an app are moved to that program by the next change of the app. By
    /// default they stay what they were made as, so that a newer library or program alone changes
    /// nothing. A service's proxy is made anew then: its address does not answer for a moment.
    pub move_agents: bool,
    /// The address of the engine's machine that public ports are published on, and at which they
    /// are reported.
    pub publish: String,
    /// The folder with the keys that secrets are sealed with before they reach the engine.
    pub keys: PathBuf,
    /// Whether images are built from Dockerfiles by BuildKit; else by the engine's classic builder.
    /// By default what `DOCKER_BUILDKIT` says, and BuildKit where it says nothing.
    pub buildkit: bool,
}

/// Where an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Host {
    /// A socket of this machine.
    Unix(PathBuf),
    /// `host:port`, in the clear.
    Tcp(String),
    /// `host:port`, with TLS.
    Tls(String, TlsFiles),
    /// `[user@]host[:port]`, by the program `ssh` and `docker system dial-stdio` on the other side.
    Ssh(String),
}

/// As `DOCKER_HOST` is written: `unix:///path`, `tcp://host:port`, `ssh://[user@]host`.
impl std::str::FromStr for Host {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        crate::context::parse(text, None)
    }
}

/// The files that `docker --tlsverify` reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsFiles {
    /// The authorities of the engine's certificate; absent, those of this machine.
    pub ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
}

impl std::fmt::Display for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) | Self::Tls(address, _) => write!(f, "tcp://{address}"),
            Self::Ssh(target) => write!(f, "ssh://{target}"),
        }
    }
}

/// The forms of a URL.
pub(crate) const FORMS: &str = "docker:// (as the docker command finds it), docker:///PATH/TO/SOCKET, \
     docker://HOST:PORT, docker://ssh/[USER@]HOST or docker://context/NAME; with ?agents=move, agents are \
     moved to this program";

impl DockerConfig {
    /// The engine at `host`. Public ports are published on 127.0.0.1 where the engine is of this
    /// machine, and on all addresses of another.
    pub fn new(host: Host) -> Self {
        let publish = match &host {
            Host::Unix(_) => "127.0.0.1".to_owned(),
            Host::Tcp(address) | Host::Tls(address, _) => {
                address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host).to_owned()
            }
            Host::Ssh(target) => {
                let host = target.rsplit_once('@').map_or(target.as_str(), |(_, host)| host);
                host.split(':').next().unwrap_or(host).to_owned()
            }
        };
        let base = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".config")
        });
        let buildkit = std::env::var("DOCKER_BUILDKIT");
        let buildkit = !buildkit.is_ok_and(|word| matches!(&*word, "0" | "false"));
        let keys = base.join("deploykit/keys");
        Self { host, agent: None, move_agents: false, publish, keys, buildkit }
    }

    /// From `docker://` (`DOCKER_HOST`, else the current context of the docker command, else its
    /// default socket), `docker:///path/to/socket`, `docker://host:port`,
    /// `docker://ssh/[user@]host` or `docker://context/name`, each followed by `?agents=move` where
    /// [agents are moved](Self::move_agents).
    ///
    /// # Errors
    /// `Invalid` where it is none of these; `NotFound` where there is no such context.
    pub fn from_url(url: &str) -> Result<Self> {
        let bad = || {
            let problem = Problem::new("url", format!("`{url}` names no engine"), FORMS);
            Error::invalid("open the docker backend", vec![problem]).on(BACKEND)
        };
        let rest = url.strip_prefix("docker://").ok_or_else(bad)?;
        let (rest, move_agents) = match rest.split_once('?') {
            Some((rest, "agents=move")) => (rest, true),
            Some(_) => return Err(bad()),
            None => (rest, false),
        };
        let host = match rest.split_once('/') {
            None if rest.is_empty() => crate::context::current()?,
            None if rest.contains(':') => Host::Tcp(rest.to_owned()),
            Some(("", _)) => Host::Unix(rest.into()),
            Some(("ssh", target)) if !target.is_empty() => Host::Ssh(target.to_owned()),
            Some(("context", name)) if !name.is_empty() => crate::context::named(name)?,
            _ => return Err(bad()),
        };
        Ok(Self::new(host).move_agents(move_agents))
    }

    /// Sets the folder of keys. Default `$XDG_CONFIG_HOME/deploykit/keys` (`~/.config` where that
    /// is not set).
    pub fn keys(mut self, folder: impl Into<PathBuf>) -> Self {
        self.keys = folder.into();
        self
    }

    /// Sets whether BuildKit builds.
    pub fn buildkit(mut self, buildkit: bool) -> Self {
        self.buildkit = buildkit;
        self
    }

    /// Sets whether agents are moved to this program.
    pub fn move_agents(mut self, move_agents: bool) -> Self {
        self.move_agents = move_agents;
        self
    }

    /// Sets where the agent's program is.
    pub fn agent(mut self, program: impl Into<PathBuf>) -> Self {
        self.agent = Some(program.into());
        self
    }
}
