//! Removing what no kept revision names.

use std::collections::BTreeSet;

use deploykit_core::{Result, StepContext};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::ApiResource;

use crate::cluster::Cluster;
use crate::{labels, objects};

/// Removes the ConfigMaps of contents, and the Secrets made of certificates, that no kept revision
/// names. Versions of secrets are the deployer's to delete.
pub(crate) async fn run(cluster: &Cluster, context: &StepContext) -> Result<()> {
    let selector = format!("{},{}={}", labels::CONFIG, labels::APP, context.fence.app);
    let found = cluster.list::<ConfigMap>("look for configs", &selector).await?;
    let selector =
        format!("{}={},{}={}", labels::ROLE, labels::CERTIFICATE, labels::APP, context.fence.app);
    let api = cluster.api::<Secret>();
    let params = ListParams::default().labels(&selector);
    let made = cluster.again("look for certificates", || api.list_metadata(&params)).await?.items;
    let (maps, secrets) = (ApiResource::erase::<ConfigMap>(&()), ApiResource::erase::<Secret>(&()));
    let contents = context.kept.iter().flat_map(|app| {
        app.app.configs.iter().map(|(name, c)| objects::config_object(app, name, &c.content))
    });
    let mut named: BTreeSet<String> = contents.collect();
    let certificates = context.kept.iter().flat_map(|app| {
        let endpoints = app.app.services.keys().filter_map(|name| app.endpoint(name));
        let versions = endpoints.flat_map(|endpoint| endpoint.certificates);
        versions.map(|(name, v)| objects::certificate_object(&app.app.name, &name, v))
    });
    named.extend(certificates);
    let unnamed = found.iter().map(|map| (&maps, map.name_any(), map.uid()));
    let unnamed = unnamed.chain(made.iter().map(|s| (&secrets, s.name_any(), s.uid())));
    let unnamed: Vec<_> = unnamed.filter(|(_, name, _)| !named.contains(name)).collect();
    if unnamed.is_empty() {
        return Ok(());
    }
    cluster.check(&context.fence).await?;
    for (resource, name, uid) in unnamed {
        cluster.delete(resource, &name, uid).await?;
    }
    Ok(())
}
