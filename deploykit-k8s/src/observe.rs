//! What a cluster runs of an app.

use std::borrow::Borrow;
use std::collections::{BTreeMap, BTreeSet};

use deploykit_core::model::{Address, AppName, Publish, ServiceName, VolumeName};
use deploykit_core::{Endpoint, EndpointPort, Instance, Observation, Result, SpecHash};
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec,
};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, PodTemplateSpec, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::ListParams;

use crate::cluster::{Cluster, some};
use crate::{labels, objects, pods, raw};

pub(crate) async fn observe(cluster: &Cluster, app: &AppName) -> Result<Observation> {
    let selector = format!("{}={app}", labels::APP);
    let claims = async {
        let api = cluster.api::<PersistentVolumeClaim>();
        let params = ListParams::default().labels(&selector);
        Ok(cluster.again("look for volumes", || api.list_metadata(&params)).await?.items)
    };
    let (pods, services, claims, controllers, schedules, raw) = futures_util::try_join!(
        cluster.list::<Pod>("look for pods", &selector),
        cluster.list::<Service>("look for services", &selector),
        claims,
        controllers(cluster, &selector),
        cluster.list::<CronJob>("look for schedules", &selector),
        raw::observe(cluster, app),
    )?;
    let schedule = |cron: CronJob| {
        let name = ServiceName::new(cron.labels().get(labels::SERVICE)?.clone()).ok()?;
        let hash = cron.annotations().get(labels::HASH).cloned().unwrap_or_default();
        Some((name, SpecHash::from_text(hash)))
    };
    let volumes = claims
        .iter()
        .filter_map(|claim| VolumeName::new(claim.labels().get(labels::VOLUME)?.clone()).ok());
    let endpoints = services.iter().filter_map(|service| endpoint(service, &pods));
    Ok(Observation {
        endpoints: endpoints.collect(),
        volumes: volumes.collect(),
        networks: BTreeSet::new(),
        instances: instances(&pods),
        controllers,
        schedules: schedules.into_iter().filter_map(schedule).collect(),
        raw,
        has_keeper: false,
    })
}

/// What pods are made from, by service or job.
async fn controllers(cluster: &Cluster, selector: &str) -> Result<BTreeMap<ServiceName, SpecHash>> {
    let operation = "look for what makes pods";
    let (deployments, stateful_sets, daemon_sets, jobs) = futures_util::try_join!(
        cluster.list::<Deployment>(operation, selector),
        cluster.list::<StatefulSet>(operation, selector),
        cluster.list::<DaemonSet>(operation, selector),
        cluster.list::<Job>(operation, selector),
    )?;
    let deployments = deployments
        .into_iter()
        .map(|d| (d.metadata, some::<DeploymentSpec>(d.spec).map(|spec| spec.template)));
    let stateful_sets = stateful_sets
        .into_iter()
        .map(|s| (s.metadata, some::<StatefulSetSpec>(s.spec).map(|spec| spec.template)));
    let daemon_sets = daemon_sets
        .into_iter()
        .map(|d| (d.metadata, some::<DaemonSetSpec>(d.spec).map(|spec| spec.template)));
    // What a schedule has made comes and goes by itself.
    let jobs = jobs.into_iter().filter(|job| !objects::is_scheduled(job.labels()));
    let jobs = jobs.map(|j| (j.metadata, some::<JobSpec>(j.spec).map(|spec| spec.template)));
    let of = |(metadata, template): (ObjectMeta, Option<PodTemplateSpec>)| {
        let name = ServiceName::new(metadata.labels?.remove(labels::SERVICE)?).ok()?;
        let made_from = template.and_then(|t| t.metadata?.annotations?.remove(labels::HASH));
        Some((name, SpecHash::from_text(made_from.unwrap_or_default())))
    };
    Ok(deployments.chain(stateful_sets).chain(daemon_sets).chain(jobs).filter_map(of).collect())
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
pub(crate) fn endpoint(
    service: &Service,
    pods: &[impl Borrow<Pod>],
) -> Option<(ServiceName, Endpoint)> {
    let name = ServiceName::new(service.labels().get(labels::SERVICE)?.clone()).ok()?;
    let spec = service.spec.as_ref()?;
    let selected = |pod: &&Pod| {
        let mut wanted = spec.selector.iter().flatten();
        wanted.all(|(key, value)| pod.labels().get(key) == Some(value))
    };
    let takes_requests = |pod: &&Pod| {
        pod.metadata.deletion_timestamp.is_none() && !pod.labels().contains_key(labels::RUN)
    };
    let pods = pods.iter().map(Borrow::borrow);
    let routed: Vec<&Pod> = pods.filter(selected).filter(takes_requests).collect();
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
