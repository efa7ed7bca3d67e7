//! Which networks containers are on.

use deploykit_core::model::AppName;
use deploykit_core::{EndpointSpec, InstanceSpec, Result};

use crate::names;
use crate::runtime::Docker;

/// The networks of an instance, all there: the first is the one that it is started with.
pub(crate) async fn of_instance(
    docker: &Docker,
    app: &AppName,
    spec: &InstanceSpec,
) -> Result<Vec<String>> {
    let mut all = vec![names::app_network(app)];
    all.extend(spec.template.networks.iter().map(|name| names::named_network(app, name)));
    docker.engine.ensure_network(app, &all[0], None).await?;
    Ok(all)
}

/// The networks of a proxy, all there.
pub(crate) async fn of_proxy(
    docker: &Docker,
    app: &AppName,
    _spec: &EndpointSpec,
) -> Result<Vec<String>> {
    let network = names::app_network(app);
    docker.engine.ensure_network(app, &network, None).await?;
    Ok(vec![network])
}
