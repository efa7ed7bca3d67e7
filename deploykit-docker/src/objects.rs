//! Containers, networks and volumes, made so that nobody else's are touched.

use bollard::models::{
    ContainerCreateBody, Network, NetworkConnectRequest, NetworkCreateRequest, VolumeCreateRequest,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, ListNetworksOptionsBuilder, ListVolumesOptionsBuilder,
    RemoveContainerOptionsBuilder, RemoveVolumeOptionsBuilder,
};
use deploykit_core::model::{AppName, VolumeName};
use deploykit_core::{ErrorKind, Result};

use crate::engine::Engine;
use crate::error::{Mapped as _, engine, error, is_missing, status};
use crate::keeper::foreign;
use crate::names::{self, Role};
use crate::seen::Owned;

/// How often, and how long apart, the end of a removal that somebody else has begun is waited for.
const LOOKS: u32 = 200;
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

impl Engine {
    /// Makes a container; one of its name that is ours is left as it is. Returns whether there was
    /// none.
    pub(crate) async fn create(
        &self,
        app: &AppName,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<bool> {
        const MAKE: &str = "make a container";
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        for _ in 0..LOOKS {
            match self.api.create_container(Some(options.clone()), body.clone()).await {
                Ok(made) => {
                    let labels = body.labels.unwrap_or_default();
                    self.seen.made(name, Owned { id: made.id, labels });
                    return Ok(true);
                }
                Err(cause) if status(&cause) == Some(409) => {
                    let there = self.api.inspect_container(name, None).await.optional(MAKE)?;
                    let labels = there.and_then(|there| there.config?.labels);
                    match labels {
                        Some(labels) if names::are_ours(&labels, app) => return Ok(false),
                        Some(_) => return Err(foreign("container", name)),
                        // One that is being removed is gone before its name is free.
                        None => tokio::time::sleep(PAUSE).await,
                    }
                }
                Err(cause) => return Err(engine(MAKE, cause).with("container", name)),
            }
        }
        let message = "its name is taken by one that is still being removed; see the engine's log";
        Err(error(ErrorKind::Timeout, MAKE, message).with("container", name))
    }

    /// The container of a name, where there is one that is ours. It may have gone meanwhile.
    pub(crate) async fn ours(&self, app: &AppName, name: &str) -> Result<Option<Owned>> {
        if let Some(owned) = self.seen.ours(name) {
            return Ok(Some(owned));
        }
        let there =
            self.api.inspect_container(name, None).await.optional("look for a container")?;
        let owned =
            there.and_then(|there| Some(Owned { id: there.id?, labels: there.config?.labels? }));
        Ok(owned.filter(|owned| names::are_ours(&owned.labels, app)))
    }

    /// Removes a container, running or not, and waits until it is gone.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        const REMOVE: &str = "remove a container";
        let options = || RemoveContainerOptionsBuilder::new().v(true).force(true).build();
        for _ in 0..LOOKS {
            match self.api.remove_container(name, Some(options())).await {
                Ok(()) => return Ok(()),
                Err(cause) if is_missing(&cause) => return Ok(()),
                // "removal of container … is already in progress"
                Err(cause) if status(&cause) == Some(409) => {
                    tokio::time::sleep(PAUSE).await;
                }
                Err(cause) => return Err(engine(REMOVE, cause).with("container", name)),
            }
        }
        let message = "it is still being removed; see the engine's log";
        Err(error(ErrorKind::Timeout, REMOVE, message).with("container", name))
    }

    /// Makes a network with some labels beside those of all; one of its name that is ours is left
    /// as it is.
    pub(crate) async fn ensure_network(
        &self,
        app: &AppName,
        name: &str,
        own: &[(&str, &str)],
    ) -> Result<()> {
        const MAKE: &str = "make a network";
        if self.the_network(app, name).await?.is_some() {
            return Ok(());
        }
        let _turn = self.turn(name).await;
        if self.the_network(app, name).await?.is_some() {
            return Ok(());
        }
        let mut labels = names::labels(app, Role::Network);
        labels.extend(own.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let network = NetworkCreateRequest {
            name: name.to_owned(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels),
            ..NetworkCreateRequest::default()
        };
        match self.api.create_network(network).await {
            Ok(_) => {}
            Err(cause) if status(&cause) == Some(409) => {}
            Err(cause) => return Err(engine(MAKE, cause).with("network", name)),
        }
        // Another deployer may have made one at the same time, and so may one that died.
        self.the_network(app, name).await.map(drop)
    }

    /// The id of the app's network of a name. Engines let several have one name, and then refuse
    /// it as ambiguous: the oldest of them stays.
    async fn the_network(&self, app: &AppName, name: &str) -> Result<Option<String>> {
        const LOOK: &str = "look for a network";
        // A network cannot be asked for by its exact name.
        let filters = [("name".to_owned(), vec![format!("^{name}$")])].into();
        let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
        let mut found = self.api.list_networks(Some(options)).await.tried(LOOK)?;
        found.retain(|network| network.name.as_deref() == Some(name));
        found.sort_by(|a, b| (&a.created, &a.id).cmp(&(&b.created, &b.id)));
        let ours = |there: &Network| {
            there.labels.as_ref().is_some_and(|labels| names::are_ours(labels, app))
        };
        if !found.iter().all(ours) {
            return Err(foreign("network", name));
        }
        let mut ids = found.into_iter().filter_map(|network| network.id);
        let oldest = ids.next();
        for id in ids {
            self.api.remove_network(&id).await.optional(LOOK)?;
        }
        Ok(oldest)
    }

    /// Connects a container to a network under some names, where it is not connected yet.
    pub(crate) async fn join(
        &self,
        container: &str,
        network: &str,
        aliases: Vec<String>,
    ) -> Result<()> {
        let endpoint =
            bollard::models::EndpointSettings { aliases: Some(aliases), ..Default::default() };
        let request = NetworkConnectRequest {
            container: container.to_owned(),
            endpoint_config: Some(endpoint),
        };
        match self.api.connect_network(network, request).await {
            Ok(()) => Ok(()),
            Err(cause) if cause.to_string().contains("already exists") => Ok(()),
            Err(cause) => Err(engine("connect a container to a network", cause)
                .with("container", container)
                .with("network", network)),
        }
    }

    /// Removes a network and everybody's connection to it.
    pub(crate) async fn remove_network(&self, app: &AppName, name: &str) -> Result<()> {
        const REMOVE: &str = "remove a network";
        let found = self.api.inspect_network(name, None).await.optional(REMOVE)?;
        let Some(found) = found else { return Ok(()) };
        if !found.labels.as_ref().is_some_and(|labels| names::are_ours(labels, app)) {
            return Ok(());
        }
        for container in found.containers.unwrap_or_default().into_keys() {
            let request =
                bollard::models::NetworkDisconnectRequest { container, force: Some(true) };
            self.api.disconnect_network(name, request).await.optional(REMOVE)?;
        }
        self.api.remove_network(name).await.optional(REMOVE).map(drop)
    }

    /// Makes a volume; one of its name that is ours is left as it is.
    pub(crate) async fn ensure_volume(
        &self,
        app: &AppName,
        name: &VolumeName,
        slot: Option<u32>,
    ) -> Result<String> {
        const MAKE: &str = "make a volume";
        let full = names::volume(app, name, slot);
        let mut labels = names::labels(app, Role::Volume);
        labels.insert(names::NAME.to_owned(), name.to_string());
        let volume = VolumeCreateRequest {
            name: Some(full.clone()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        // One that is there is answered as it is.
        let made = self.api.create_volume(volume).await.tried(MAKE)?;
        match names::are_ours(&made.labels, app) {
            true => Ok(full),
            false => Err(foreign("volume", &full)),
        }
    }

    /// Removes a volume of an app, with those of all replicas.
    pub(crate) async fn remove_volume(&self, app: &AppName, name: &VolumeName) -> Result<()> {
        const REMOVE: &str = "remove a volume";
        let mut filters = names::of(app, Some(Role::Volume));
        if let Some(labels) = filters.get_mut("label") {
            labels.push(format!("{}={name}", names::NAME));
        }
        let options = ListVolumesOptionsBuilder::new().filters(&filters).build();
        let found = self.api.list_volumes(Some(options)).await.tried(REMOVE)?;
        for volume in found.volumes.unwrap_or_default() {
            let options = RemoveVolumeOptionsBuilder::new().build();
            self.api.remove_volume(&volume.name, Some(options)).await.optional(REMOVE)?;
        }
        Ok(())
    }
}
