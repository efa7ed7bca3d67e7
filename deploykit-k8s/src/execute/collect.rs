//! Removing what no kept revision names.

use std::collections::BTreeSet;

use deploykit_core::{Result, StepContext};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::core::ApiResource;

use crate::cluster::Cluster;
use crate::{labels, objects};

/// Removes the ConfigMaps of contents that no kept revision names. Versions of secrets are the
/// deployer's to delete.
pub(crate) async fn run(cluster: &Cluster, context: &StepContext) -> Result<()> {
    let selector = format!("{},{}={}", labels::CONFIG, labels::APP, context.fence.app);
    let found = cluster.list::<ConfigMap>("look for configs", &selector).await?;
    let contents = context.kept.iter().flat_map(|app| {
        app.app.configs.iter().map(|(name, c)| objects::config_object(app, name, &c.content))
    });
    let named: BTreeSet<String> = contents.collect();
    let unnamed: Vec<&ConfigMap> =
        found.iter().filter(|map| !named.contains(&map.name_any())).collect();
    if unnamed.is_empty() {
        return Ok(());
    }
    cluster.check(&context.fence).await?;
    let resource = ApiResource::erase::<ConfigMap>(&());
    for map in unnamed {
        cluster.delete(&resource, &map.name_any(), map.uid()).await?;
    }
    Ok(())
}
