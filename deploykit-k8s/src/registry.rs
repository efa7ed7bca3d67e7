//! Services found by the EndpointSlices that the cluster keeps of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::{Address, AppName, ServiceName};
use deploykit_core::{ErrorKind, Registered, Registration, Result, ServiceRegistry};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::runtime::{WatchStreamExt, watcher};

use crate::backend::K8s;
use crate::cluster::{Cluster, some};
use crate::error::error;
use crate::labels;
use crate::view::{self, Listing, News};
use crate::watch::settings;

/// The services of one app as a [`ServiceRegistry`], over the
/// [EndpointSlices](https://kubernetes.io/docs/concepts/services-networking/endpoint-slices/) of
/// the namespace, for programs within the cluster and outside. Clones are the same.
///
/// An instance is found while it is ready, at the address of its pod and the first port of its
/// service; its metadata holds its `node`, and its `zone` where the node has one, which
/// balancers prefer by. What it needs is `get`, `list` and `watch` of EndpointSlices.
///
/// ```no_run
/// # async fn find() -> deploykit_core::Result<()> {
/// use deploykit_core::ServiceRegistry;
/// use deploykit_core::model::{AppName, ServiceName};
/// use deploykit_k8s::{K8s, K8sConfig};
///
/// let cluster = K8s::open(K8sConfig::default()).await?;
/// let registry = cluster.registry(AppName::new("blog")?);
/// for posts in registry.instances(&ServiceName::new("posts")?).await? {
///     println!("{} in {:?}", posts.address, posts.metadata.get("zone"));
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Registry {
    cluster: Cluster,
    app: AppName,
}

impl K8s {
    /// The services of an app, as the cluster's own discovery tells of them.
    pub fn registry(&self, app: AppName) -> Registry {
        Registry { cluster: self.cluster().clone(), app }
    }
}

impl Registry {
    /// The slices of a service carry its name
    /// (<https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetesioservice-name>).
    fn selector(&self, service: &ServiceName) -> String {
        let name = labels::service_object(&self.app, service);
        format!("kubernetes.io/service-name={name}")
    }
}

/// The ready endpoints of a service's slices, in the order of their ids. A pod with addresses of
/// both kinds is told once.
fn ready<'a>(
    service: &ServiceName,
    slices: impl Iterator<Item = &'a EndpointSlice>,
) -> Vec<Registered> {
    let mut found: BTreeMap<String, Registered> = BTreeMap::new();
    for slice in slices {
        let mut ports = slice.ports.iter().flatten().filter_map(|port| port.port);
        let Some(port) = ports.next().and_then(|port| u16::try_from(port).ok()) else { continue };
        for endpoint in some::<Vec<Endpoint>>(slice.endpoints.clone()).unwrap_or_default() {
            // Nothing said means ready.
            let ready = endpoint.conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
            let Some(host) = endpoint.addresses.into_iter().next().filter(|_| ready) else {
                continue;
            };
            let pod = endpoint.target_ref.and_then(|target| target.name);
            let id = pod.unwrap_or_else(|| host.clone());
            let mut instance = Registered::new(service.clone(), &id, Address { host, port });
            let facts = [("node", endpoint.node_name), ("zone", endpoint.zone)];
            instance.metadata.extend(
                facts.into_iter().filter_map(|(name, fact)| Some((name.to_owned(), fact?))),
            );
            if slice.address_type == "IPv4" || !found.contains_key(&id) {
                found.insert(id, instance);
            }
        }
    }
    found.into_values().collect()
}

/// A watch of a service.
struct Watching {
    service: ServiceName,
    events: BoxStream<'static, watcher::Result<watcher::Event<EndpointSlice>>>,
    slices: Listing<EndpointSlice>,
    /// What was told last.
    told: Option<Vec<Registered>>,
}

impl Watching {
    async fn next(&mut self) -> Option<Result<Vec<Registered>>> {
        loop {
            match self.events.next().await? {
                Err(lost) => return Some(Err(view::watching(lost))),
                Ok(event) => {
                    if self.slices.take(event) == News::Nobody {
                        continue;
                    }
                }
            }
            let Some(slices) = self.slices.known() else { continue };
            let now = ready(&self.service, slices.values().map(Arc::as_ref));
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                return Some(Ok(now));
            }
        }
    }
}

#[async_trait]
impl ServiceRegistry for Registry {
    /// # Errors
    /// `Unsupported`: the cluster registers pods by itself.
    async fn register(&self, instance: Registered, _: Duration) -> Result<Box<dyn Registration>> {
        let message = "pods of a service are found by themselves; deploy the service";
        Err(error(ErrorKind::Unsupported, "register an instance", message)
            .with("service", instance.service))
    }

    async fn instances(&self, service: &ServiceName) -> Result<Vec<Registered>> {
        let selector = self.selector(service);
        let slices = self.cluster.list::<EndpointSlice>("look for endpoints", &selector).await?;
        Ok(ready(service, slices.iter()))
    }

    /// A watch that breaks is begun again, and told as an error meanwhile.
    async fn watch(
        &self,
        service: &ServiceName,
    ) -> Result<BoxStream<'static, Result<Vec<Registered>>>> {
        let api = self.cluster.lasting::<EndpointSlice>();
        let watching = Watching {
            service: service.clone(),
            events: watcher(api, settings(&self.selector(service))).default_backoff().boxed(),
            slices: Listing::default(),
            told: None,
        };
        Ok(stream::unfold(watching, |mut watching| async move {
            let list = watching.next().await?;
            Some((list, watching))
        })
        .boxed())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_is_ready_is_told_once() {
        let slice = |kind: &str, endpoints: serde_json::Value| -> EndpointSlice {
            serde_json::from_value(json!({
                "metadata": {},
                "addressType": kind,
                "endpoints": endpoints,
                "ports": [{ "name": "tcp-80", "port": 80 }],
            }))
            .unwrap()
        };
        let pod = |name: &str| json!({ "kind": "Pod", "name": name });
        let slices = [
            slice("IPv6", json!([{ "addresses": ["fd00::1"], "targetRef": pod("b") }])),
            slice(
                "IPv4",
                json!([
                    { "addresses": ["10.0.0.2"], "targetRef": pod("b"), "zone": "z", "nodeName": "n" },
                    { "addresses": ["10.0.0.3"], "targetRef": pod("a"), "conditions": { "ready": true } },
                    { "addresses": ["10.0.0.4"], "targetRef": pod("c"), "conditions": { "ready": false } },
                ]),
            ),
        ];
        let web = ServiceName::new("web").unwrap();
        let found = ready(&web, slices.iter());
        let told: Vec<String> = found.iter().map(|i| format!("{} {}", i.id, i.address)).collect();
        assert_eq!(told, ["a 10.0.0.3:80", "b 10.0.0.2:80"]);
        assert_eq!(
            (found[1].metadata["zone"].as_str(), found[1].metadata["node"].as_str()),
            ("z", "n")
        );
    }
}
