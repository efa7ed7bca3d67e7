//! The cluster by bare calls: what is applied, watched and removed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use deploykit_benches::Result;
use futures_util::StreamExt as _;
use futures_util::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::gvk::GroupVersionKind;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, Config, ResourceExt as _};

/// The longest that anything is waited for.
const PATIENCE: Duration = Duration::from_secs(300);

pub(crate) struct Cluster(Client);

/// What is seen of a namespace, from now on.
pub(crate) struct Watch {
    start: Instant,
    client: Client,
    namespace: String,
}

impl Cluster {
    pub(crate) async fn connect() -> Result<Self> {
        let file = Kubeconfig::read_from(std::env::var("DEPLOYKIT_TEST_KUBECONFIG")?)?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        Ok(Self(Client::try_from(config)?))
    }

    /// Makes a namespace.
    pub(crate) async fn namespace(&self, word: &str) -> Result<String> {
        let name = format!("bench-{word}");
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.clone());
        let api = Api::<Namespace>::all(self.0.clone());
        api.create(&PostParams::default(), &namespace).await?;
        Ok(name)
    }

    /// Removes a namespace and waits until it is gone, so that nothing of it disturbs what is next.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        let api = Api::<Namespace>::all(self.0.clone());
        api.delete(name, &DeleteParams::default()).await?;
        let start = Instant::now();
        while api.get_opt(name).await?.is_some() {
            if start.elapsed() > PATIENCE {
                return Err(format!("the namespace {name} does not go").into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// The image that a pod of the namespace runs.
    pub(crate) async fn image(&self, namespace: &str) -> Result<String> {
        let pods = Api::<Pod>::namespaced(self.0.clone(), namespace);
        let pod = pods.list(&Default::default()).await?.items.into_iter().next();
        let container = pod.and_then(|pod| pod.spec?.containers.into_iter().next());
        Ok(container.and_then(|container| container.image).ok_or("no pod has an image")?)
    }

    /// Applies objects, all at once.
    pub(crate) async fn apply(&self, namespace: &str, objects: &[DynamicObject]) -> Result<()> {
        let params = PatchParams::apply("bench");
        let calls = objects.iter().map(|object| {
            let params = &params;
            async move {
                let types = object.types.as_ref().ok_or("an object without its kind")?;
                let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
                let api =
                    Api::<DynamicObject>::namespaced_with(self.0.clone(), namespace, &resource);
                api.patch(&object.name_any(), params, &Patch::Apply(object)).await?;
                Ok::<_, deploykit_benches::Failure>(())
            }
        });
        try_join_all(calls).await.map(drop)
    }

    pub(crate) fn watch(&self, namespace: &str) -> Watch {
        Watch { start: Instant::now(), client: self.0.clone(), namespace: namespace.to_owned() }
    }
}

fn generation(deployment: &Deployment) -> i64 {
    deployment.metadata.generation.unwrap_or(0)
}

fn is_ready(deployment: &Deployment) -> bool {
    let status = deployment.status.as_ref();
    let count = |of: Option<i32>| of.unwrap_or(0);
    status.is_some_and(|status| {
        let wanted = deployment.spec.replicas.unwrap_or(1);
        status.observed_generation.unwrap_or(0) >= generation(deployment)
            && count(status.updated_replicas) >= wanted
            && count(status.available_replicas) >= wanted
            && count(status.replicas) == wanted
    })
}

impl Watch {
    /// Follows a kind until what is there is as it is waited for: the seconds since the start.
    async fn until<K>(&self, mut is_it: impl FnMut(&BTreeMap<String, K>) -> bool) -> Result<f64>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned
            + Send
            + 'static,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.namespace);
        let events = watcher(api, watcher::Config::default()).default_backoff();
        let mut events = std::pin::pin!(events.touched_objects());
        let mut there = BTreeMap::new();
        let wait = async {
            while let Some(event) = events.next().await {
                let object = event?;
                there.insert(object.name_any(), object);
                if is_it(&there) {
                    return Ok(self.start.elapsed().as_secs_f64());
                }
            }
            Err("a watch has ended".into())
        };
        tokio::time::timeout(PATIENCE, wait).await.map_err(|_| "it was waited for in vain")?
    }

    /// When that many services have their objects.
    pub(crate) async fn all_there(&self, count: usize) -> Result<f64> {
        let deployments = self.until::<Deployment>(|there| there.len() >= count);
        let services = self.until::<Service>(|there| there.len() >= count);
        let (deployments, services) = tokio::try_join!(deployments, services)?;
        Ok(deployments.max(services))
    }

    /// When that many services are there, and all are ready.
    pub(crate) async fn all_ready(&self, count: usize) -> Result<f64> {
        self.until::<Deployment>(|there| there.len() >= count && there.values().all(is_ready)).await
    }

    /// When one of that many has changed from what was there first.
    pub(crate) async fn one_changed(&self, count: usize) -> Result<f64> {
        let mut before: BTreeMap<String, i64> = BTreeMap::new();
        self.until::<Deployment>(|there| {
            for (name, deployment) in there {
                before.entry(name.clone()).or_insert_with(|| generation(deployment));
            }
            there.len() >= count && there.iter().any(|(name, d)| generation(d) > before[name])
        })
        .await
    }

    /// When a pod's image could not be pulled.
    pub(crate) async fn pull_failed(&self) -> Result<f64> {
        let reason = |pod: &Pod| -> Option<String> {
            let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
            status.state.as_ref()?.waiting.as_ref()?.reason.clone()
        };
        self.until::<Pod>(|there| {
            let mut reasons = there.values().filter_map(reason);
            reasons.any(|reason| reason == "ErrImagePull" || reason == "ImagePullBackOff")
        })
        .await
    }
}
