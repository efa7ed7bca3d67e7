//! The stable address of a service.

use std::collections::BTreeMap;

use deploykit_core::SpecHash;
use deploykit_core::model::{EndpointMode, Publish};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::DynamicObject;
use serde_json::Value;

use super::container::wire_protocol;
use super::{Manifest, Part};
use crate::config::Public;
use crate::labels;

/// What stands in the place of an address where a Service has none.
pub(crate) const HEADLESS: &str = "None";

/// Whether a Service has to be made anew to be like the manifest: one that has an address cannot
/// lose it, and the other way round.
pub(crate) fn is_replaced(manifest: &Manifest, there: &DynamicObject) -> bool {
    let is_headless = |object: &Value| object["spec"]["clusterIP"] == HEADLESS;
    manifest.resource.kind == "Service" && is_headless(&manifest.value) != is_headless(&there.data)
}

/// The Service of a service that has ports.
pub(super) fn service(part: &Part<'_>) -> Option<Manifest> {
    let endpoint = part.target.endpoint(part.name)?;
    let published = endpoint.ports.iter().any(|port| port.publish == Publish::Public);
    let kind = match (published, part.config.public) {
        (false, _) => "ClusterIP",
        (true, Public::NodePort) => "NodePort",
        (true, Public::LoadBalancer) => "LoadBalancer",
    };
    let ports = endpoint.ports.iter().map(|port| ServicePort {
        name: Some(port_name(port.port, &wire_protocol(port.protocol))),
        port: port.port.into(),
        protocol: Some(wire_protocol(port.protocol)),
        target_port: Some(IntOrString::Int(port.port.into())),
        ..ServicePort::default()
    });
    let mut metadata = part.metadata(part.object_name());
    let hash = SpecHash::of_endpoint(&endpoint).to_string();
    metadata.annotations = Some(BTreeMap::from([(labels::HASH.to_owned(), hash)]));
    Some(Manifest::of(&Service {
        metadata,
        spec: Into::into(ServiceSpec {
            type_: Some(kind.into()),
            // The name leads to the pods themselves
            // (<https://kubernetes.io/docs/concepts/services-networking/service/#headless-services>).
            cluster_ip: (endpoint.mode == EndpointMode::Dnsrr).then(|| HEADLESS.to_owned()),
            selector: Some(part.selector()),
            ports: Some(ports.collect()),
            ..ServiceSpec::default()
        }),
        status: Default::default(),
    }))
}

/// The name of a port of a Service.
pub(crate) fn port_name(port: u16, protocol: &str) -> String {
    format!("{}-{port}", protocol.to_ascii_lowercase())
}
