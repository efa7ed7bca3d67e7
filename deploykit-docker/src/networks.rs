//! Which networks containers are on.
//!
//! All of an app are on one network, where each service is found by its name. In an isolated app
//! the instances of a service are on one of their own, with its proxy and the keeper; and each pair
//! of services of which one may reach the other has a network with the instances of the first and
//! the proxy of the second. Who is on no such network has no way there.

use std::collections::BTreeSet;

use bollard::models::Network;
use bollard::query_parameters::ListNetworksOptionsBuilder;
use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{InstanceSpec, Result};

use crate::engine::Engine;
use crate::error::Mapped as _;
use crate::names::{self, Role};
use crate::runtime::Docker;

/// The networks of an instance, all there but that of the whole app, which its keeper keeps: the
/// first is the one that it is started with.
pub(crate) async fn of_instance(
    docker: &Docker,
    app: &AppName,
    spec: &InstanceSpec,
) -> Result<Vec<String>> {
    let engine = &docker.engine;
    let mut all = Vec::new();
    match &spec.template.reaches {
        None => all.push(names::app_network(app)),
        Some(reaches) => {
            let own = names::own_network(app, &spec.service);
            lead(engine, app, &own, &spec.service, &spec.service).await?;
            engine.join(&names::keeper(app), &own, Vec::new()).await?;
            all.push(own);
            for to in reaches {
                let link = names::link_network(app, &spec.service, to);
                lead(engine, app, &link, &spec.service, to).await?;
                all.push(link);
            }
        }
    }
    all.extend(spec.template.networks.iter().map(|name| names::named_network(app, name)));
    Ok(all)
}

/// Makes a network on which instances of one service reach the proxy of another, where that has
/// one.
async fn lead(
    engine: &Engine,
    app: &AppName,
    network: &str,
    from: &ServiceName,
    to: &ServiceName,
) -> Result<()> {
    let labels = [(names::SERVICE, from.as_str()), (names::TO, to.as_str())];
    engine.ensure_network(app, network, &labels).await?;
    let proxy = names::proxy(app, to);
    if engine.api.inspect_container(&proxy, None).await.optional("look for a proxy")?.is_some() {
        engine.join(&proxy, network, vec![to.to_string()]).await?;
    }
    Ok(())
}

/// The networks of an isolated app.
async fn leading(engine: &Engine, app: &AppName) -> Result<Vec<Network>> {
    let mut filters = names::of(app, Some(Role::Network));
    if let Some(labels) = filters.get_mut("label") {
        labels.push(names::TO.to_owned());
    }
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    engine.api.list_networks(Some(options)).await.tried("list the networks of the app")
}

fn label<'a>(network: &'a Network, name: &str) -> Option<&'a String> {
    network.labels.as_ref()?.get(name)
}

/// Connects a new proxy to the networks that lead to it.
pub(crate) async fn join_proxy(
    engine: &Engine,
    app: &AppName,
    service: &ServiceName,
) -> Result<()> {
    for network in leading(engine, app).await? {
        if label(&network, names::TO).is_some_and(|to| service == to.as_str()) {
            let name = network.name.unwrap_or_default();
            engine.join(&names::proxy(app, service), &name, vec![service.to_string()]).await?;
        }
    }
    Ok(())
}

/// Connects a new keeper to the instances that it asks.
pub(crate) async fn join_keeper(engine: &Engine, app: &AppName) -> Result<()> {
    for network in leading(engine, app).await? {
        if label(&network, names::TO) == label(&network, names::SERVICE) {
            let name = network.name.unwrap_or_default();
            engine.join(&names::keeper(app), &name, Vec::new()).await?;
        }
    }
    Ok(())
}

/// Removes the networks of an isolated app that no instance is on.
pub(crate) async fn collect(engine: &Engine, app: &AppName) -> Result<()> {
    let instances = engine.containers(app, Some(Role::Instance)).await?;
    let used: BTreeSet<String> = instances
        .into_iter()
        .filter_map(|container| container.network_settings?.networks)
        .flat_map(|networks| networks.into_keys())
        .collect();
    for network in leading(engine, app).await? {
        let name = network.name.unwrap_or_default();
        if !used.contains(&name) {
            engine.remove_network(app, &name).await?;
        }
    }
    Ok(())
}
