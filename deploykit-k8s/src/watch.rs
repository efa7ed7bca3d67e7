//! Changes of an app, told as they happen.

use deploykit_core::Result;
use deploykit_core::model::AppName;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};

use crate::cluster::Cluster;
use crate::labels;

/// The settings of every watch: what it selects, and an end after which it is begun again, so that
/// a connection that died without a word is noticed.
pub(crate) fn settings(selector: &str) -> watcher::Config {
    watcher::Config::default().labels(selector).timeout(240)
}

fn metadata<K>(cluster: &Cluster) -> Api<PartialObjectMeta<K>>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(cluster.client.clone(), &cluster.namespace)
}

/// Yields at each change. Lost watches are begun again, with everything that is there as news.
pub(crate) fn watch(cluster: &Cluster, app: &AppName) -> BoxStream<'static, Result<()>> {
    let selector = format!("{}={app}", labels::APP);
    macro_rules! changes {
        ($kind:ty) => {
            watcher(metadata::<$kind>(cluster), settings(&selector))
                .default_backoff()
                .filter_map(async |event| match event {
                    Ok(watcher::Event::Apply(_) | watcher::Event::Delete(_)) => Some(Ok(())),
                    Ok(_) => None,
                    Err(error) => {
                        tracing::debug!(%error, "a watch is begun again");
                        Some(Ok(()))
                    }
                })
                .boxed()
        };
    }
    stream::select_all([changes!(Pod), changes!(Service), changes!(PersistentVolumeClaim)]).boxed()
}
