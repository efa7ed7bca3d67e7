//! The deploy lock: a Lease, changed by compare-and-swap.
//!
//! Its epoch is the version that the object had before it was taken, which grows with every write
//! of the cluster. Whether a lease still runs is judged by the API server's clock alone: by the
//! time of its answer, and the time at which it has noted the last change of the object. The clocks
//! of deployers count for nothing.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, Fence, Lease, Result};
use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use kube::api::{GetParams, ListParams, PostParams};
use kube::client::Body;
use kube::core::{ApiResource, ObjectList, Request, Status};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::cluster::{Cluster, lost_race};
use crate::error::{client, error};
use crate::labels;

pub(crate) const EPOCH: &str = "deploykit.dev/epoch";
const OPERATION: &str = "take the deploy lock";

/// How often a renewal that somebody else's write has come before is made again.
pub(crate) const RACES: u32 = 5;

/// How long others may come before it is asked whose the lock is.
const GATHERING: Duration = Duration::from_millis(2);

/// The lock of an app, and how long ago it was last changed.
struct Seen {
    object: LeaseObject,
    age: Option<Duration>,
}

impl Seen {
    fn new(object: LeaseObject, now: Option<Timestamp>) -> Self {
        let writes = object.metadata.managed_fields.iter().flatten();
        let changed = writes.filter_map(|entry| Some(entry.time.as_ref()?.0)).max();
        let age = now.zip(changed).map(|(now, changed)| {
            Duration::try_from(now.duration_since(changed)).unwrap_or_default()
        });
        Self { object, age }
    }

    fn holder(&self) -> Option<&str> {
        let spec = self.object.spec.as_ref()?;
        spec.holder_identity.as_deref().filter(|holder| !holder.is_empty())
    }

    fn epoch(&self) -> Option<u64> {
        self.object.annotations().get(EPOCH)?.parse().ok()
    }

    fn runs(&self) -> bool {
        let seconds = self.object.spec.as_ref().and_then(|s| s.lease_duration_seconds).unwrap_or(0);
        let ttl = Duration::from_secs(seconds.max(0) as u64);
        // Both times are whole seconds, so that a difference may be one too many.
        self.holder().is_some() && self.age.is_none_or(|age| age < ttl + Duration::from_secs(1))
    }
}

fn name(app: &AppName) -> String {
    format!("deploykit.{app}")
}

/// A version of an object as a number, which those of today's API servers are
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-versions>).
pub(crate) fn number(version: Option<&str>) -> Result<u64> {
    version.and_then(|version| version.parse().ok()).ok_or_else(|| {
        let message = format!("the API server's version {version:?} is no number");
        error(ErrorKind::Unsupported, "read a version", message)
    })
}

fn held(app: &AppName, seen: &Seen) -> Error {
    let holder = seen.holder().unwrap_or("somebody");
    let message = format!("{holder} is at work on the app; wait for that, or for its lease to end");
    error(ErrorKind::Conflict, OPERATION, message).with("app", app).with("holder", holder)
}

fn taken_over(app: &AppName) -> Error {
    let message = "the deploy lock has been taken over by another deployer";
    error(ErrorKind::Conflict, "change the app", message).with("app", app)
}

impl Cluster {
    /// Asks for a lock: for the object, or for the list of it. Returns what is answered, and when
    /// by the API server's clock; nothing where there is no such object.
    async fn ask<T: DeserializeOwned>(
        &self,
        app: &AppName,
        list: bool,
    ) -> Result<Option<(T, Option<Timestamp>)>> {
        let operation = "read the deploy lock";
        let name = name(app);
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let path = Request::new(LeaseObject::url_path(&(), Some(&self.namespace)));
        let answer = self.again(operation, || async {
            let request = match list {
                true => path.list(&params),
                false => path.get(&name, &GetParams::default()),
            };
            let request = request.map_err(kube::Error::BuildRequest)?;
            let answer = self.client.send(request.map(Body::from)).await?;
            let now = answer.headers().get("date").and_then(|date| date.to_str().ok());
            let now = now.and_then(|date| rfc2822::parse(date).ok()).map(|z| z.timestamp());
            let code = answer.status();
            let bytes = answer.into_body().collect_bytes().await?;
            if code.is_success() || code.as_u16() == 404 {
                return Ok((code, now, bytes));
            }
            let told: Status = serde_json::from_slice(&bytes).unwrap_or_default();
            Err(kube::Error::Api(Box::new(Status { code: code.as_u16(), ..told })))
        });
        let (code, now, bytes) = answer.await?;
        if code.as_u16() == 404 {
            return Ok(None);
        }
        let read = serde_json::from_slice(&bytes)
            .map_err(|source| client(operation)(kube::Error::SerdeError(source)))?;
        Ok(Some((read, now)))
    }

    async fn read_lock(&self, app: &AppName) -> Result<Option<Seen>> {
        Ok(self.ask(app, false).await?.map(|(object, now)| Seen::new(object, now)))
    }

    /// The lock as it is, and what is then a version as great as any that it has had.
    async fn find_lock(&self, app: &AppName) -> Result<(Option<Seen>, u64)> {
        let answer = self.ask::<ObjectList<LeaseObject>>(app, true).await?;
        let Some((list, now)) = answer else {
            let message = "the API server knows no Leases";
            return Err(error(ErrorKind::Unsupported, OPERATION, message));
        };
        let version = number(list.metadata.resource_version.as_deref())?;
        let object = list.items.into_iter().next();
        Ok((object.map(|object| Seen::new(object, now)), version))
    }

    /// A version as great as any that a Lease has had: what stands for that of one which is not there.
    pub(crate) async fn newest_version(&self, operation: &str) -> Result<u64> {
        let api = self.api::<LeaseObject>();
        let params = ListParams::default().labels(labels::ROLE).limit(1);
        let list = self.again(operation, || api.list(&params)).await?;
        number(list.metadata.resource_version.as_deref())
    }

    /// Checks that a fence is that of the newest holder. One answer of the API server is for all
    /// that came before it was asked.
    pub(crate) async fn check(&self, fence: &Fence) -> Result<()> {
        let answer = {
            let mut question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
            match &*question {
                Some((of, answer)) if of == fence => Arc::clone(answer),
                _ => Arc::clone(&question.insert((fence.clone(), Arc::default())).1),
            }
        };
        let ask = || async {
            tokio::time::sleep(GATHERING).await;
            {
                let mut question = self.question.lock().unwrap_or_else(PoisonError::into_inner);
                question.take_if(|(_, next)| Arc::ptr_eq(next, &answer));
            }
            let seen = self.ahead().read_lock(&fence.app).await?;
            match seen.and_then(|seen| seen.epoch()) {
                Some(epoch) if epoch == fence.epoch => Ok(()),
                _ => Err(taken_over(&fence.app)),
            }
        };
        answer.get_or_try_init(ask).await.map(drop)
    }

    pub(crate) async fn acquire(
        &self,
        app: &AppName,
        holder: &str,
        ttl: Duration,
    ) -> Result<Lease> {
        let (seen, newest) = self.find_lock(app).await?;
        let lease =
            |epoch| Lease { fence: Fence { app: app.clone(), epoch }, holder: holder.to_owned() };
        let api = self.api::<LeaseObject>();
        let params = PostParams { field_manager: Some(labels::MANAGER.into()), dry_run: false };
        let written = match seen {
            Some(seen) if seen.runs() => return Err(held(app, &seen)),
            Some(mut seen) => {
                let epoch = number(seen.object.metadata.resource_version.as_deref())?;
                take(&mut seen.object, Some(epoch), holder, ttl);
                let name = name(app);
                let done = self.once(OPERATION, || api.replace(&name, &params, &seen.object));
                done.await.map(|_| lease(epoch))
            }
            None => {
                let epoch = newest;
                let mut object = LeaseObject {
                    metadata: ObjectMeta {
                        name: Some(name(app)),
                        labels: Some(labels::of_app(app)),
                        ..ObjectMeta::default()
                    },
                    spec: Some(LeaseSpec::default()),
                };
                take(&mut object, Some(epoch), holder, ttl);
                let done = self.once(OPERATION, || api.create(&params, &object));
                done.await.map(|_| lease(epoch))
            }
        };
        match written {
            Err(error) if lost_race(&error) => match self.read_lock(app).await? {
                Some(seen) => Err(held(app, &seen)),
                None => Err(error),
            },
            written => written,
        }
    }

    pub(crate) async fn renew(&self, lease: &Lease, ttl: Duration) -> Result<()> {
        let app = &lease.fence.app;
        self.change_lock(lease, &|object| take(object, None, &lease.holder, ttl))
            .await?
            .then_some(())
            .ok_or_else(|| taken_over(app))
    }

    /// Gives the lock back. Where nothing of the app is left, so is nothing of the lock.
    pub(crate) async fn release(&self, lease: &Lease, nothing_left: bool) -> Result<()> {
        if !nothing_left {
            let free = |object: &mut LeaseObject| {
                object.annotations_mut().remove(EPOCH);
                if let Some(spec) = &mut object.spec {
                    spec.holder_identity = None;
                }
            };
            return self.change_lock(lease, &free).await.map(drop);
        }
        let Some(seen) = self.read_lock(&lease.fence.app).await? else { return Ok(()) };
        if seen.epoch() != Some(lease.fence.epoch) {
            return Ok(());
        }
        let resource = ApiResource::erase::<LeaseObject>(&());
        self.delete(&resource, &name(&lease.fence.app), seen.object.uid()).await
    }

    /// Changes the lock while it is that of `lease`. Returns whether it is.
    async fn change_lock(
        &self,
        lease: &Lease,
        change: &(dyn Fn(&mut LeaseObject) + Sync),
    ) -> Result<bool> {
        let api = self.api::<LeaseObject>();
        let params = PostParams { field_manager: Some(labels::MANAGER.into()), dry_run: false };
        let mut races = 0;
        loop {
            let seen = self.read_lock(&lease.fence.app).await?;
            let Some(mut seen) = seen.filter(|s| s.epoch() == Some(lease.fence.epoch)) else {
                return Ok(false);
            };
            change(&mut seen.object);
            let name = name(&lease.fence.app);
            match self.once(OPERATION, || api.replace(&name, &params, &seen.object)).await {
                Err(error) if lost_race(&error) && races < RACES => races += 1,
                done => return done.map(|_| true),
            }
        }
    }
}

/// Writes who holds a lock. A renewal keeps the epoch.
pub(crate) fn take(object: &mut LeaseObject, epoch: Option<u64>, holder: &str, ttl: Duration) {
    let now = MicroTime(Timestamp::now());
    let spec = object.spec.get_or_insert_default();
    if let Some(epoch) = epoch {
        spec.acquire_time = Some(now.clone());
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0) + 1);
        object.metadata.annotations.get_or_insert_default().insert(EPOCH.into(), epoch.to_string());
    }
    let spec = object.spec.get_or_insert_default();
    spec.holder_identity = Some(holder.to_owned());
    // Rounded up: who looks must not take it before the holder gives up.
    spec.lease_duration_seconds = i32::try_from(ttl.as_millis().div_ceil(1000)).ok();
    spec.renew_time = Some(now);
}
