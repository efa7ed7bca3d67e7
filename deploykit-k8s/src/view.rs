//! What the steps of an apply wait on: the pods of an app and what keeps them, followed by one
//! watch for each kind, however many steps there are.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{Error, ErrorKind, Result};
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Cluster;
use crate::error::{client, error};
use crate::labels;
use crate::watch::settings;

const OPERATION: &str = "watch the app";
/// How long the first look may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The objects that a watch tells of, by their names.
#[derive(Debug)]
pub(crate) struct Listing<K> {
    known: Option<BTreeMap<String, Arc<K>>>,
    /// Of the list that is on its way.
    listed: BTreeMap<String, Arc<K>>,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self { known: None, listed: BTreeMap::new() }
    }
}

impl<K: ResourceExt> Listing<K> {
    /// What is there; nothing before the first list is whole.
    pub(crate) fn known(&self) -> Option<&BTreeMap<String, Arc<K>>> {
        self.known.as_ref()
    }

    /// The object of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<K>> {
        self.known.as_ref()?.get(name)
    }

    /// Takes what a watch tells. Returns whether there is something new to see.
    pub(crate) fn take(&mut self, event: watcher::Event<K>) -> bool {
        match event {
            watcher::Event::Init => self.listed = BTreeMap::new(),
            watcher::Event::InitApply(object) => {
                self.listed.insert(object.name_any(), Arc::new(object));
            }
            watcher::Event::InitDone => {
                self.known = Some(std::mem::take(&mut self.listed));
                return true;
            }
            watcher::Event::Apply(object) => {
                let known = self.known.get_or_insert_default();
                known.insert(object.name_any(), Arc::new(object));
                return true;
            }
            watcher::Event::Delete(object) => {
                self.known.get_or_insert_default().remove(&object.name_any());
                return true;
            }
        }
        false
    }
}

/// What is there now.
#[derive(Default)]
pub(crate) struct Live {
    pub(crate) pods: Listing<Pod>,
    pub(crate) deployments: Listing<Deployment>,
    pub(crate) stateful_sets: Listing<StatefulSet>,
    pub(crate) daemon_sets: Listing<DaemonSet>,
    pub(crate) jobs: Listing<Job>,
    /// Why a watch could not be begun.
    failed: Option<String>,
}

impl Live {
    fn is_whole(&self) -> bool {
        self.pods.known().is_some()
            && self.deployments.known().is_some()
            && self.stateful_sets.known().is_some()
            && self.daemon_sets.known().is_some()
            && self.jobs.known().is_some()
    }

    /// The pods of a service or job.
    pub(crate) fn pods_of(&self, service: &ServiceName) -> Vec<Arc<Pod>> {
        let of = |pod: &&Arc<Pod>| {
            pod.labels().get(labels::SERVICE).is_some_and(|name| *service == name.as_str())
        };
        self.pods.known().into_iter().flat_map(BTreeMap::values).filter(of).cloned().collect()
    }
}

/// See the [module](self).
pub(crate) struct View {
    live: Arc<Mutex<Live>>,
    changed: watch::Receiver<u64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The views of apps that somebody waits on.
#[derive(Default)]
pub(crate) struct Views(Mutex<HashMap<AppName, Weak<View>>>);

impl Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Views")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Views {
    /// The view of an app that all steps of an apply share.
    pub(crate) fn of(&self, cluster: &Cluster, app: &AppName) -> Arc<View> {
        let mut views = lock(&self.0);
        views.retain(|_, view| view.strong_count() > 0);
        if let Some(view) = views.get(app).and_then(Weak::upgrade) {
            return view;
        }
        let view = Arc::new(View::open(cluster, app));
        views.insert(app.clone(), Arc::downgrade(&view));
        view
    }
}

impl View {
    fn open(cluster: &Cluster, app: &AppName) -> Self {
        let (tell, changed) = watch::channel(0);
        let live = Arc::new(Mutex::new(Live::default()));
        let selector = format!("{}={app}", labels::APP);
        let follow = Follow { cluster, selector: &selector, live: &live, tell: &tell };
        let tasks = vec![
            follow.kind::<Pod>(|live| &mut live.pods),
            follow.kind::<Deployment>(|live| &mut live.deployments),
            follow.kind::<StatefulSet>(|live| &mut live.stateful_sets),
            follow.kind::<DaemonSet>(|live| &mut live.daemon_sets),
            follow.kind::<Job>(|live| &mut live.jobs),
        ];
        Self { live, changed, tasks }
    }

    /// A receiver that tells of each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// Looks at what is there, once that is known.
    pub(crate) async fn look<T>(&self, look: impl Fn(&Live) -> T) -> Result<T> {
        let mut changes = self.changes();
        let whole = async {
            loop {
                {
                    let live = lock(&self.live);
                    if live.is_whole() {
                        return look(&live);
                    }
                }
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, whole).await.map_err(|_| {
            let why = lock(&self.live).failed.clone().unwrap_or_else(|| "no answer".into());
            let message = format!("the app cannot be watched: {why}");
            error(ErrorKind::Unavailable, OPERATION, message)
        })
    }
}

struct Follow<'a> {
    cluster: &'a Cluster,
    selector: &'a str,
    live: &'a Arc<Mutex<Live>>,
    tell: &'a watch::Sender<u64>,
}

impl Follow<'_> {
    fn kind<K>(&self, part: fn(&mut Live) -> &mut Listing<K>) -> JoinHandle<()>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + Debug
            + DeserializeOwned
            + Send
            + Sync
            + 'static,
    {
        let events = watcher(self.cluster.api::<K>(), settings(self.selector)).default_backoff();
        let (live, tell) = (Arc::clone(self.live), self.tell.clone());
        tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                {
                    let mut live = lock(&live);
                    match event {
                        Ok(event) => {
                            if !part(&mut live).take(event) {
                                continue;
                            }
                        }
                        Err(error) => {
                            tracing::debug!(%error, "a watch is begun again");
                            live.failed = Some(watching(error).message().to_owned());
                        }
                    }
                }
                tell.send_modify(|number| *number += 1);
            }
        })
    }
}

/// What keeps a watch from being begun.
pub(crate) fn watching(failure: watcher::Error) -> Error {
    match failure {
        watcher::Error::InitialListFailed(cause)
        | watcher::Error::WatchStartFailed(cause)
        | watcher::Error::WatchFailed(cause) => client(OPERATION)(cause),
        other => error(ErrorKind::Unavailable, OPERATION, other.to_string()),
    }
}
