//! Changes of an app, told as they happen.

use deploykit_core::Result;
use deploykit_core::model::AppName;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};

use crate::cluster::Cluster;
use crate::{labels, view};

/// The settings of every watch: what it selects, and an end after which it is begun again, so that
/// a connection that died without a word is noticed.
pub(crate) fn settings(selector: &str) -> watcher::Config {
    watcher::Config::default().labels(selector).timeout(240)
}

/// Yields at each change from now on. Lost watches are begun again, with everything that is there as
/// news.
pub(crate) async fn watch(
    cluster: &Cluster,
    app: &AppName,
) -> Result<BoxStream<'static, Result<()>>> {
    let selector = format!("{}={app}", labels::APP);
    macro_rules! changes {
        ($kind:ty) => {
            watcher(cluster.lasting::<PartialObjectMeta<$kind>>(), settings(&selector))
                .default_backoff()
                .filter_map(async |event| match event {
                    Ok(
                        watcher::Event::InitDone
                        | watcher::Event::Apply(_)
                        | watcher::Event::Delete(_),
                    ) => Some(Ok(())),
                    Ok(_) => None,
                    Err(error) => Some(Err(view::watching(error))),
                })
                .boxed()
        };
    }
    let mut all =
        [changes!(Pod), changes!(Service), changes!(CronJob), changes!(PersistentVolumeClaim)];
    // What is there already is no news.
    for changes in &mut all {
        changes.next().await.transpose()?;
    }
    let told = stream::select_all(all).map(|change: Result<()>| {
        if let Err(error) = change {
            tracing::debug!(%error, "a watch is begun again");
        }
        Ok(())
    });
    Ok(told.boxed())
}
