//! etcd: registrations under leases in the layout of gRPC's naming, and locks.

mod follow;
mod lease;
mod lock;
mod naming;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::ServiceName;
use deploykit_core::{Error, ErrorKind, Registered, Registration, Result, ServiceRegistry};
use etcd_client::{Certificate, Client, ConnectOptions, TlsOptions};
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep, timeout};

use self::follow::Follow;
use self::lease::Lease;
use crate::config::RegistryConfig;
use crate::error::{of_etcd, timed_out};
use crate::keeper::Keeper;

/// How long one call may take, and all tries of it together.
const CALL: Duration = Duration::from_secs(3);
const BUDGET: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(200);

/// A cluster of etcd as [`ServiceRegistry`] and [`Coordinator`](deploykit_core::Coordinator).
/// Clones are the same client.
///
/// An instance is the key `PREFIX/SERVICE/ID` under a lease, with the JSON of
/// [gRPC naming](https://etcd.io/docs/v3.5/dev-guide/grpc_naming/) as its value: gRPC clients of
/// other languages resolve `etcd:///PREFIX/SERVICE`, and what they register is found here. Locks
/// are under `PREFIX/.locks/`.
///
/// ```no_run
/// # async fn example() -> deploykit_core::Result<()> {
/// use std::time::Duration;
/// use deploykit_core::model::{Address, ServiceName};
/// use deploykit_core::{Registered, ServiceRegistry};
/// use deploykit_registry::{Etcd, RegistryConfig};
///
/// let etcd = Etcd::open(RegistryConfig::from_url("etcd://127.0.0.1:2379/shop")?).await?;
/// let address = Address { host: "10.0.0.7".into(), port: 8080 };
/// let me = Registered::new(ServiceName::new("posts")?, "posts-1", address);
/// let registration = etcd.register(me, Duration::from_secs(10)).await?;
/// registration.deregister().await
/// # }
/// ```
#[derive(Clone)]
pub struct Etcd(Arc<Shared>);

struct Shared {
    client: Client,
    /// Empty, or ends with a slash.
    prefix: String,
    keepers: Mutex<BTreeMap<Duration, Keeper>>,
}

impl Etcd {
    /// Connects to a cluster; a member that does not answer is left out until it does.
    ///
    /// # Errors
    /// `Invalid` for certificates that cannot be read, `Unauthorized` for a wrong password,
    /// `Unavailable` or `Timeout` where no member answers.
    pub async fn open(config: RegistryConfig) -> Result<Self> {
        let operation = "connect to etcd";
        let mut options = ConnectOptions::new()
            .with_connect_timeout(Duration::from_secs(2))
            .with_keep_alive(Duration::from_secs(2), Duration::from_secs(2))
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_auto_token_refresh(true);
        if config.tls {
            options = options.with_tls(match &config.ca {
                Some(file) => {
                    let pem = std::fs::read(file).map_err(|error| {
                        let message = format!("`{}` cannot be read", file.display());
                        Error::new(ErrorKind::Invalid, operation, message).because(error)
                    })?;
                    TlsOptions::new().ca_certificate(Certificate::from_pem(pem))
                }
                None => TlsOptions::new().with_native_roots(),
            });
        }
        if let Some((name, password)) = &config.user {
            let password = String::from_utf8_lossy(password.expose());
            options = options.with_user(name, password);
        }
        let hosts = config.hosts.join(",");
        let client = timeout(BUDGET, Client::connect(&config.hosts, Some(options))).await;
        let client = client
            .map_err(|_| timed_out("etcd", operation))
            .and_then(|client| client.map_err(|error| of_etcd(operation, error)))
            .map_err(|error| error.with("hosts", &hosts))?;
        let prefix = match config.path.as_str() {
            "" => String::new(),
            path => format!("{path}/"),
        };
        let etcd = Self(Arc::new(Shared { client, prefix, keepers: Mutex::default() }));
        let probe = etcd.0.prefix.clone() + ".locks/";
        etcd.call(operation, |mut client| {
            let probe = probe.clone();
            async move { client.get(probe, None).await }
        })
        .await
        .map_err(|error| error.with("hosts", hosts))?;
        Ok(etcd)
    }

    /// Makes an idempotent call until it is answered, for at most [`BUDGET`].
    async fn call<T, F>(&self, operation: &str, call: impl Fn(Client) -> F) -> Result<T>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        answered(operation, BUDGET, || call(self.0.client.clone())).await
    }

    fn service(&self, service: &ServiceName) -> String {
        format!("{}{service}/", self.0.prefix)
    }

    fn keeper(&self, ttl: Duration) -> Keeper {
        let mut keepers = self.0.keepers.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Keeper::start(Lease::new(self.0.client.clone(), ttl));
        keepers.entry(ttl).or_insert_with(start).clone()
    }

    async fn follow(&self, service: &ServiceName) -> Result<Follow<Registered>> {
        let of = service.clone();
        let read =
            move |id: &str, entry: &etcd_client::KeyValue| naming::read(&of, id, entry.value());
        Follow::start(self.clone(), self.service(service), read).await
    }
}

/// Makes a call; again, for at most `budget`, while no member answers it.
async fn answered<T, F>(operation: &str, budget: Duration, call: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<T, etcd_client::Error>>,
{
    let begun = Instant::now();
    loop {
        let error = match timeout(CALL, call()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => of_etcd(operation, error),
            Err(_) => timed_out("etcd", operation),
        };
        if !error.is_retryable() || begun.elapsed() + PAUSE > budget {
            return Err(error);
        }
        sleep(PAUSE).await;
    }
}

#[async_trait]
impl ServiceRegistry for Etcd {
    /// The time to live is rounded up to whole seconds; etcd makes it longer than its elections
    /// take (2 s by default). Cancel-safe: a registration that nobody waits for is taken back.
    async fn register(&self, instance: Registered, ttl: Duration) -> Result<Box<dyn Registration>> {
        let key = self.service(&instance.service) + &instance.id;
        self.keeper(ttl).put(key, naming::write(&instance)).await
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
