//! ZooKeeper: registrations as ephemeral nodes in Apache Curator's layout, and locks.

mod follow;
mod lock;
mod session;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::ServiceName;
use deploykit_core::{Error, ErrorKind, Registered, Registration, Result, ServiceRegistry};
use futures_util::stream::BoxStream;
use tokio::time::timeout;
use zookeeper_client::{Acl, Acls, AuthId, Client, CreateMode, Permission};

use self::follow::Follow;
use self::session::Session;
use crate::config::RegistryConfig;
use crate::curator::ServiceInstance;
use crate::error::{of_zookeeper, timed_out};
use crate::keeper::Keeper;

/// How long one call may take, and how long connecting may.
const CALL: Duration = Duration::from_secs(5);
const CONNECT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// A cluster of ZooKeeper (3.6 or newer) as [`ServiceRegistry`] and
/// [`Coordinator`](deploykit_core::Coordinator). Clones are the same client.
///
/// An instance is the ephemeral node `BASE/SERVICE/ID` in the layout and the JSON of
/// [Apache Curator's discovery](https://curator.apache.org/docs/service-discovery): Java services
/// find ours, and ours find theirs. Locks are under `BASE.locks/`. With a user, digest
/// authentication is used, and what is made here may be read by all and changed by that user.
///
/// ```no_run
/// # async fn example() -> deploykit_core::Result<()> {
/// use deploykit_core::{ServiceRegistry, model::ServiceName};
/// use deploykit_registry::{RegistryConfig, ZooKeeper};
///
/// let zookeeper = ZooKeeper::open(RegistryConfig::from_url("zk://127.0.0.1/shop")?).await?;
/// println!("{:?}", zookeeper.instances(&ServiceName::new("posts")?).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct ZooKeeper(Arc<Shared>);

struct Shared {
    connect: Connect,
    /// What reads and watches; another one once its session has ended.
    reader: tokio::sync::Mutex<Client>,
    /// Begins with a slash and ends without; may be empty.
    base: String,
    keepers: Mutex<BTreeMap<Duration, Keeper>>,
}

/// How clients are made.
#[derive(Clone)]
struct Connect {
    hosts: String,
    user: Option<(String, Vec<u8>)>,
}

impl Connect {
    async fn connect(&self, ttl: Duration) -> Result<Client> {
        let mut connector = Client::connector()
            .with_session_timeout(ttl)
            .with_connection_timeout(Duration::from_secs(2).min(ttl / 3));
        if let Some((_, auth)) = &self.user {
            connector = connector.with_auth("digest", auth);
        }
        let operation = "connect to ZooKeeper";
        let client = timeout(CONNECT, connector.connect(&self.hosts)).await;
        client
            .map_err(|_| timed_out("zookeeper", operation))
            .and_then(|client| client.map_err(|error| of_zookeeper(operation, error)))
            .map_err(|error| error.with("hosts", &self.hosts))
    }

    fn acls(&self) -> Vec<Acl> {
        match &self.user {
            None => vec![Acl::new(Permission::ALL, AuthId::anyone())],
            Some(_) => vec![
                Acl::new(Permission::ALL, AuthId::authed()),
                Acl::new(Permission::READ, AuthId::anyone()),
            ],
        }
    }

    /// Makes a node of that path and those above it.
    async fn make_folder(&self, client: &Client, path: &str) -> Result<()> {
        let acls = self.acls();
        let options = CreateMode::Persistent.with_acls(Acls::new(&acls));
        within("make a folder", client.mkdir(path, &options)).await
    }
}

/// A call that ends in time.
async fn within<T>(
    operation: &str,
    call: impl Future<Output = Result<T, zookeeper_client::Error>>,
) -> Result<T> {
    let answer = timeout(CALL, call).await.map_err(|_| timed_out("zookeeper", operation))?;
    answer.map_err(|error| of_zookeeper(operation, error))
}

impl ZooKeeper {
    /// Connects to a cluster.
    ///
    /// # Errors
    /// `Unsupported` where TLS is asked for, `Unavailable` or `Timeout` where no server answers.
    pub async fn open(config: RegistryConfig) -> Result<Self> {
        if config.tls {
            let message = "TLS to ZooKeeper is not there yet; leave out `tls` and `ca`";
            let error = Error::new(ErrorKind::Unsupported, "connect to ZooKeeper", message);
            return Err(error.on("zookeeper"));
        }
        let user = config.user.as_ref().map(|(name, password)| {
            let auth = [name.as_bytes(), b":", password.expose()].concat();
            (name.clone(), auth)
        });
        let connect = Connect { hosts: config.hosts.join(","), user };
        let reader = tokio::sync::Mutex::new(connect.connect(CONNECT).await?);
        let base = match config.path.as_str() {
            "" => String::new(),
            path => format!("/{path}"),
        };
        Ok(Self(Arc::new(Shared { connect, reader, base, keepers: Mutex::default() })))
    }

    /// The client that reads; a new one where the session of the last has ended.
    async fn reader(&self) -> Result<Client> {
        let mut reader = self.0.reader.lock().await;
        if reader.state().is_terminated() {
            *reader = self.0.connect.connect(CONNECT).await?;
        }
        Ok(reader.clone())
    }

    fn service(&self, service: &ServiceName) -> String {
        format!("{}/{service}", self.0.base)
    }

    fn keeper(&self, ttl: Duration) -> Keeper {
        let mut keepers = self.0.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Keeper::start(Session::new(self.0.connect.clone(), ttl));
        keepers.entry(ttl).or_insert_with(start).clone()
    }

    async fn follow(&self, service: &ServiceName) -> Result<Follow<Registered>> {
        let of = service.clone();
        let read = move |_: &str, data: &[u8], _| {
            serde_json::from_slice::<ServiceInstance>(data).ok()?.to_registered(&of)
        };
        Follow::start(self.clone(), self.service(service), read).await
    }
}

#[async_trait]
impl ServiceRegistry for ZooKeeper {
    /// The server keeps the time to live within its own limits (by default 4 to 40 s with ticks of
    /// 2 s). Cancel-safe: a registration that nobody waits for is taken back.
    ///
    /// # Errors
    /// `Invalid` for an id with a slash.
    async fn register(&self, instance: Registered, ttl: Duration) -> Result<Box<dyn Registration>> {
        if instance.id.contains('/') || instance.id.is_empty() {
            let message = "the id of an instance is the name of a node: not empty, without a slash";
            let error = Error::new(ErrorKind::Invalid, "register", message).on("zookeeper");
            return Err(error.with("id", instance.id));
        }
        let path = format!("{}/{}", self.service(&instance.service), instance.id);
        let data = serde_json::json!(ServiceInstance::of(&instance)).to_string().into_bytes();
        self.keeper(ttl).put(path, data).await
    }

    async fn instances(&self, service: &ServiceName) -> Result<Vec<Registered>> {
        Ok(self.follow(service).await?.values())
    }

    async fn watch(
        &self,
        service: &ServiceName,
    ) -> Result<BoxStream<'static, Result<Vec<Registered>>>> {
        Ok(self.follow(service).await?.changes(Follow::values))
    }
}
