//! What a cluster runs of an app.

use std::collections::{BTreeMap, BTreeSet};

use deploykit_core::model::{Address, AppName, Publish, ServiceName, VolumeName};
use deploykit_core::{Endpoint, EndpointPort, Instance, Observation, Result, SpecHash};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cluster::Cluster;
use crate::{labels, pods};

pub(crate) async fn observe(cluster: &Cluster, app: &AppName) -> Result<Observation> {
    let selector = format!("{}={app}", labels::APP);
    let claims = async {
        let api = cluster.api::<PersistentVolumeClaim>();
        let params = ListParams::default().labels(&selector);
        Ok(cluster.again("look for volumes", || api.list_metadata(&params)).await?.items)
    };
    let (pods, services, claims) = futures_util::try_join!(
        cluster.list::<Pod>("look for pods", &selector),
        cluster.list::<Service>("look for services", &selector),
        claims,
    )?;
    let volumes = claims
        .iter()
        .filter_map(|claim| VolumeName::new(claim.labels().get(labels::VOLUME)?.clone()).ok());
    let endpoints = services.iter().filter_map(|service| endpoint(service, &pods));
    Ok(Observation {
        endpoints: endpoints.collect(),
        volumes: volumes.collect(),
        networks: BTreeSet::new(),
        instances: instances(&pods),
    })
}

/// The instances that pods are, each service's numbered in the order of their making.
pub(crate) fn instances(pods: &[Pod]) -> Vec<Instance> {
    let mut sorted: Vec<&Pod> = pods.iter().collect();
    sorted
        .sort_by_key(|pod| (pod.metadata.creation_timestamp.clone().map(|t| t.0), pod.name_any()));
    let mut counted: BTreeMap<ServiceName, u32> = BTreeMap::new();
    let instance = |pod: &Pod| {
        let mut instance = pods::instance(pod)?;
        let next = counted.entry(instance.service.clone()).or_default();
        instance.slot = pods::ordinal(pod).unwrap_or(*next);
        *next += 1;
        Some(instance)
    };
    let mut instances: Vec<Instance> = sorted.into_iter().filter_map(instance).collect();
    instances.sort_by(|a, b| a.id.cmp(&b.id));
    instances
}

/// The endpoint that a Service is.
fn endpoint(service: &Service, pods: &[Pod]) -> Option<(ServiceName, Endpoint)> {
    let name = ServiceName::new(service.labels().get(labels::SERVICE)?.clone()).ok()?;
    let spec = service.spec.as_ref()?;
    let selected = |pod: &&Pod| {
        let mut wanted = spec.selector.iter().flatten();
        wanted.all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    let takes_requests = |pod: &&Pod| {
        pod.metadata.deletion_timestamp.is_none() && !pod.labels().contains_key(labels::RUN)
    };
    let routed: Vec<&Pod> = pods.iter().filter(selected).filter(takes_requests).collect();
    let kind = spec.type_.as_deref();
    // The address of any node does; that of one where an instance runs is known without a right
    // to see nodes.
    let node = routed.iter().find_map(|pod| pod.status.as_ref()?.host_ip.clone());
    let balancer = service.status.as_ref().and_then(|status| {
        let first = status.load_balancer.as_ref()?.ingress.as_ref()?.first()?;
        first.hostname.clone().or_else(|| first.ip.clone())
    });
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        let declared = u16::try_from(port.port).ok()?;
        let public = match kind {
            Some("NodePort") => {
                let at = port.node_port.and_then(|port| u16::try_from(port).ok());
                node.clone().zip(at).map(|(host, port)| Address { host, port })
            }
            Some("LoadBalancer") => balancer.clone().map(|host| Address { host, port: declared }),
            _ => None,
        };
        Some(EndpointPort {
            declared,
            address: Address { host: service.name_any(), port: declared },
            publish: if public.is_some() { Publish::Public } else { Publish::Internal },
            public,
        })
    });
    let endpoint = Endpoint {
        hash: SpecHash::from_text(
            service.annotations().get(labels::HASH).cloned().unwrap_or_default(),
        ),
        ports: ports.collect(),
        routed: routed.iter().map(|pod| pod.name_any()).collect(),
    };
    Some((name, endpoint))
}
