//! Locks for services, as Leases of the namespace.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::{Coordinator, Lock, LockEntry, LockStore, Locks, Result};
use futures_util::stream::BoxStream;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::PostParams;

use crate::backend::K8s;
use crate::cluster::{Cluster, lost_race};
use crate::labels;
use crate::lock::{EPOCH, RACES, number, take};

/// How often those who wait look.
const LOOK: Duration = Duration::from_millis(500);
/// What the Lease of a lock is to us.
const ROLE: &str = "lock";
/// Annotation: the name of the lock, which need not be one of Kubernetes.
const NAME: &str = "deploykit.dev/lock";

/// A [`Coordinator`] over the
/// [Leases](https://kubernetes.io/docs/concepts/architecture/leases/) of a namespace, for programs
/// within the cluster and outside. Clones are the same.
///
/// Tokens are versions of the cluster, which grow with every write. Whether a holder lives is
/// judged by the clock of who looks, from the last change of the Lease on. Waiters look twice a
/// second, and get it in no order. A time to live counts in whole seconds, rounded up. The Lease of
/// a lock that was given back stays; what it needs is `get`, `list`, `create` and `update` of
/// Leases.
///
/// ```no_run
/// # async fn lead() -> deploykit_core::Result<()> {
/// use std::time::Duration;
/// use deploykit_core::Coordinator;
/// use deploykit_k8s::{K8s, K8sConfig};
///
/// let cluster = K8s::open(K8sConfig::default()).await?;
/// let lock = cluster.coordination().lock("reports", "me", Duration::from_secs(15)).await?;
/// println!("what is written carries the token {}", lock.token());
/// lock.release().await
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Coordination(Locks<Leases>);

#[derive(Debug)]
struct Leases(Cluster);

impl K8s {
    /// Locks for services, kept in the namespace.
    pub fn coordination(&self) -> Coordination {
        Coordination(Locks::new(Leases(self.cluster().clone())))
    }
}

fn object_name(lock: &str) -> String {
    format!("deploykit.lock.{}", &labels::hex(lock.as_bytes())[..40])
}

fn entry(lease: &Lease) -> Result<LockEntry> {
    let spec = lease.spec.clone().unwrap_or_default();
    let token = lease.annotations().get(EPOCH).and_then(|epoch| epoch.parse().ok());
    let seconds = spec.lease_duration_seconds.unwrap_or(0);
    Ok(LockEntry {
        token: token.unwrap_or(0),
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        beat: number(lease.metadata.resource_version.as_deref())?,
        ttl: Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    })
}

fn writing() -> PostParams {
    PostParams { field_manager: Some(labels::MANAGER.into()), dry_run: false }
}

impl Leases {
    async fn lease(&self, name: &str) -> Result<Option<Lease>> {
        self.0.get::<Lease>("look at a lock", &object_name(name)).await
    }

    /// Changes a lock while it is of that token. Returns whether it is.
    async fn change(
        &self,
        (name, token): (&str, u64),
        operation: &str,
        change: impl Fn(&mut Lease) + Sync,
    ) -> Result<bool> {
        let api = self.0.api::<Lease>();
        let mut races = 0;
        loop {
            let Some(mut lease) = self.lease(name).await? else { return Ok(false) };
            let seen = entry(&lease)?;
            if seen.token != token || seen.holder.is_none() {
                return Ok(false);
            }
            change(&mut lease);
            let (object, params) = (object_name(name), writing());
            match self.0.once(operation, || api.replace(&object, &params, &lease)).await {
                Err(error) if lost_race(&error) && races < RACES => races += 1,
                done => return done.map(|_| true),
            }
        }
    }
}

#[async_trait]
impl LockStore for Leases {
    fn pause(&self) -> Duration {
        LOOK
    }

    async fn look(&self, name: &str) -> Result<Option<LockEntry>> {
        self.lease(name).await?.as_ref().map(entry).transpose()
    }

    async fn take(
        &self,
        name: &str,
        holder: &str,
        ttl: Duration,
        expired: Option<&LockEntry>,
    ) -> Result<Option<u64>> {
        let operation = "take a lock";
        let api = self.0.api::<Lease>();
        let params = writing();
        let (token, written) = match self.lease(name).await? {
            Some(mut lease) => {
                let seen = entry(&lease)?;
                if seen.holder.is_some() && Some(&seen) != expired {
                    return Ok(None);
                }
                take(&mut lease, Some(seen.beat), holder, ttl);
                let object = object_name(name);
                let done = self.0.once(operation, || api.replace(&object, &params, &lease));
                (seen.beat, done.await)
            }
            None => {
                let token = self.0.newest_version(operation).await?;
                let labels = BTreeMap::from([
                    ("app.kubernetes.io/managed-by".to_owned(), labels::MANAGER.to_owned()),
                    (labels::ROLE.to_owned(), ROLE.to_owned()),
                ]);
                let mut lease = Lease {
                    metadata: ObjectMeta {
                        name: Some(object_name(name)),
                        labels: Some(labels),
                        annotations: Some(BTreeMap::from([(NAME.to_owned(), name.to_owned())])),
                        ..ObjectMeta::default()
                    },
                    spec: Some(LeaseSpec::default()),
                };
                take(&mut lease, Some(token), holder, ttl);
                (token, self.0.once(operation, || api.create(&params, &lease)).await)
            }
        };
        match written {
            Ok(_) => Ok(Some(token)),
            Err(error) if lost_race(&error) => Ok(None),
            Err(error) => Err(error.with("lock", name)),
        }
    }

    async fn beat(&self, name: &str, token: u64) -> Result<bool> {
        let renew = |lease: &mut Lease| {
            let spec = lease.spec.clone().unwrap_or_default();
            let seconds = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
            let holder = spec.holder_identity.unwrap_or_default();
            take(lease, None, &holder, Duration::from_secs(seconds));
        };
        self.change((name, token), "keep a lock", renew).await
    }

    async fn give_back(&self, name: &str, token: u64) -> Result<()> {
        let free = |lease: &mut Lease| {
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = None;
            }
        };
        self.change((name, token), "release a lock", free).await.map(drop)
    }
}

#[async_trait]
impl Coordinator for Coordination {
    /// Cancel-safe: a lock that is taken while nobody waits any more ends by its time to live.
    async fn lock(&self, name: &str, holder: &str, ttl: Duration) -> Result<Box<dyn Lock>> {
        self.0.lock(name, holder, ttl).await
    }

    async fn holder(&self, name: &str) -> Result<BoxStream<'static, Result<Option<String>>>> {
        self.0.holder(name).await
    }
}
