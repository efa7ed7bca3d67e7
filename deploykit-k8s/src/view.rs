//! What the steps of an apply look at: what there is of an app, found by one list for each kind, and
//! its pods and what keeps them followed by one watch for each, however many steps there are.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{Error, ErrorKind, Fence, Result};
use futures_util::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::core::ApiResource;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::{OnceCell, OwnedRwLockReadGuard, RwLock, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::beside::{Beside, Object};
use crate::cluster::Cluster;
use crate::error::{client, error};
use crate::labels;
use crate::objects::Manifest;
use crate::watch::settings;

const OPERATION: &str = "watch the app";
/// How long the first look may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long what keeps instances waits for what others need before theirs.
const LAYING: Duration = Duration::from_secs(1);
/// How long it is believed that nothing of a name is there.
const BELIEVED: Duration = Duration::from_secs(5);
/// How many objects of a kind are listed for that. Where there are more, each is looked for.
const NAMES: u32 = 500;

/// The objects that a watch tells of, by their names.
#[derive(Debug)]
pub(crate) struct Listing<K> {
    known: Option<BTreeMap<String, Arc<K>>>,
    /// Of the list that is on its way.
    listed: BTreeMap<String, Arc<K>>,
    /// The names of what is known, by service.
    services: HashMap<String, BTreeSet<String>>,
}

impl<K> Default for Listing<K> {
    fn default() -> Self {
        Self { known: None, listed: BTreeMap::new(), services: HashMap::new() }
    }
}

/// What an event is news to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    Nobody,
    /// Those who look at these services.
    Of(Vec<String>),
    All,
}

fn service_of(object: &impl ResourceExt) -> String {
    object.labels().get(labels::SERVICE).cloned().unwrap_or_default()
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

    /// The objects of a service or job.
    pub(crate) fn of(&self, service: &ServiceName) -> Vec<Arc<K>> {
        let names = self.services.get(service.as_str()).into_iter().flatten();
        names.filter_map(|name| self.get(name)).cloned().collect()
    }

    /// Takes what a watch tells.
    pub(crate) fn take(&mut self, event: watcher::Event<K>) -> News {
        match event {
            watcher::Event::Init => self.listed = BTreeMap::new(),
            watcher::Event::InitApply(object) => {
                self.listed.insert(object.name_any(), Arc::new(object));
            }
            watcher::Event::InitDone => {
                self.known = None;
                self.services = HashMap::new();
                for object in std::mem::take(&mut self.listed).into_values() {
                    self.put(object);
                }
                self.known.get_or_insert_default();
                return News::All;
            }
            watcher::Event::Apply(object) => return News::Of(self.put(Arc::new(object))),
            watcher::Event::Delete(object) => {
                return News::Of(self.remove(&object.name_any()).into_iter().collect());
            }
        }
        News::Nobody
    }

    /// Puts an object in its place, and returns the services that it was or is of.
    fn put(&mut self, object: Arc<K>) -> Vec<String> {
        let (name, service) = (object.name_any(), service_of(&*object));
        let before = self.remove(&name).filter(|before| *before != service);
        self.services.entry(service.clone()).or_default().insert(name.clone());
        self.known.get_or_insert_default().insert(name, object);
        before.into_iter().chain([service]).collect()
    }

    /// Removes an object, and returns the service that it was of.
    fn remove(&mut self, name: &str) -> Option<String> {
        let service = service_of(&*self.known.as_mut()?.remove(name)?);
        if let Some(names) = self.services.get_mut(&service) {
            names.remove(name);
        }
        Some(service)
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
    /// Who waits for news of a service.
    waiting: HashMap<String, watch::Sender<()>>,
}

impl Live {
    fn is_whole(&self) -> bool {
        self.pods.known().is_some()
            && self.deployments.known().is_some()
            && self.stateful_sets.known().is_some()
            && self.daemon_sets.known().is_some()
            && self.jobs.known().is_some()
    }

    /// What keeps the instances of a service.
    pub(crate) fn keepers(&self, service: &ServiceName) -> Vec<Object> {
        let deployments = self.deployments.of(service);
        let stateful_sets = self.stateful_sets.of(service);
        let daemon_sets = self.daemon_sets.of(service);
        let deployments = deployments.iter().map(|object| Object::of(&**object));
        let stateful_sets = stateful_sets.iter().map(|object| Object::of(&**object));
        let daemon_sets = daemon_sets.iter().map(|object| Object::of(&**object));
        deployments.chain(stateful_sets).chain(daemon_sets).collect()
    }

    fn tell(&self, news: &News) {
        match news {
            News::Nobody => {}
            News::Of(services) => {
                for waiting in services.iter().filter_map(|name| self.waiting.get(name)) {
                    waiting.send_replace(());
                }
            }
            News::All => {
                for waiting in self.waiting.values() {
                    waiting.send_replace(());
                }
            }
        }
    }
}

/// All names of a kind in the namespace, and when they were listed; nothing where that is not known.
type Names = Option<(Instant, BTreeSet<String>)>;

/// See the [module](self).
pub(crate) struct View {
    cluster: Cluster,
    selector: String,
    live: Arc<Mutex<Live>>,
    /// Told of when a list is whole, or a watch has failed.
    listed: watch::Receiver<()>,
    beside: OnceCell<Beside>,
    names: Mutex<HashMap<String, Arc<OnceCell<Names>>>>,
    laying: Arc<RwLock<()>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for View {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The views of apps that somebody looks at.
#[derive(Default)]
pub(crate) struct Views(Mutex<HashMap<(AppName, u64), Weak<View>>>);

impl Debug for Views {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Views")
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Views {
    /// The view that all steps of an apply share.
    pub(crate) fn of(&self, cluster: &Cluster, fence: &Fence) -> Arc<View> {
        let key = (fence.app.clone(), fence.epoch);
        let mut views = lock(&self.0);
        views.retain(|_, view| view.strong_count() > 0);
        if let Some(view) = views.get(&key).and_then(Weak::upgrade) {
            return view;
        }
        let view = Arc::new(View::open(cluster, &fence.app));
        views.insert(key, Arc::downgrade(&view));
        view
    }
}

impl View {
    fn open(cluster: &Cluster, app: &AppName) -> Self {
        let (tell, listed) = watch::channel(());
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
        let (cluster, beside, names) = (cluster.clone(), OnceCell::new(), Mutex::default());
        let laying = Arc::default();
        Self { cluster, selector, live, listed, beside, names, laying, tasks }
    }

    /// A receiver that tells of each change of a service or job from now on.
    pub(crate) fn changes(&self, service: &ServiceName) -> watch::Receiver<()> {
        let mut live = lock(&self.live);
        let waiting = live.waiting.entry(service.to_string());
        waiting.or_insert_with(|| watch::channel(()).0).subscribe()
    }

    /// Looks at what is there, once that is known.
    pub(crate) async fn look<T>(&self, look: impl Fn(&Live) -> T) -> Result<T> {
        let mut listed = self.listed.clone();
        let whole = async {
            loop {
                {
                    let live = lock(&self.live);
                    if live.is_whole() {
                        return look(&live);
                    }
                }
                if listed.changed().await.is_err() {
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

    /// What else was there when it was first asked for.
    pub(crate) async fn beside(&self) -> Result<&Beside> {
        self.beside.get_or_try_init(|| Beside::list(&self.cluster, &self.selector)).await
    }

    /// Held by a step that applies what its instances need before they are made.
    pub(crate) async fn laying(&self) -> OwnedRwLockReadGuard<()> {
        Arc::clone(&self.laying).read_owned().await
    }

    /// Waits a moment until no other step does that: as soon as instances are made, the cluster has
    /// so much else to do that every answer takes long.
    pub(crate) async fn laid(&self, laying: Option<OwnedRwLockReadGuard<()>>) {
        drop(laying);
        let _ = tokio::time::timeout(LAYING, self.laying.write()).await;
    }

    /// Whether nothing of that kind and name is there, be it whose it may: told by one list for all
    /// that is new. What is not known for sure is a no.
    pub(crate) async fn is_absent(&self, manifest: &Manifest) -> bool {
        let kind = &manifest.resource;
        let names = Arc::clone(lock(&self.names).entry(kind.kind.clone()).or_default());
        let names = names.get_or_init(|| self.list_names(kind)).await;
        names.as_ref().is_some_and(|(listed, names)| {
            listed.elapsed() < BELIEVED && !names.contains(&manifest.name)
        })
    }

    async fn list_names(&self, kind: &ApiResource) -> Names {
        let begun = Instant::now();
        let params = ListParams::default().limit(NAMES);
        let listed = self.cluster.list_metadata_of(kind, false, &params).await.ok()?;
        let names: BTreeSet<String> = listed.iter().map(ResourceExt::name_any).collect();
        (names.len() < NAMES as usize).then_some((begun, names))
    }
}

struct Follow<'a> {
    cluster: &'a Cluster,
    selector: &'a str,
    live: &'a Arc<Mutex<Live>>,
    tell: &'a watch::Sender<()>,
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
        let events =
            watcher(self.cluster.lasting::<K>(), settings(self.selector)).default_backoff();
        let (live, tell) = (Arc::clone(self.live), self.tell.clone());
        tokio::spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let mut live = lock(&live);
                let news = match event {
                    Ok(event) => part(&mut live).take(event),
                    Err(error) => {
                        tracing::debug!(%error, "a watch is begun again");
                        live.failed = Some(watching(error).message().to_owned());
                        News::All
                    }
                };
                live.tell(&news);
                if news == News::All {
                    tell.send_replace(());
                }
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
