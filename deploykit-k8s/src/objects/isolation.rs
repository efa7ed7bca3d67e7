//! Who may reach a service of an isolated app.

use std::collections::BTreeMap;

use deploykit_core::model::{AppName, Publish, ServiceName};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::container::wire_protocol;
use super::{Manifest, Part};
use crate::labels;

/// The NetworkPolicy of a service of an isolated app: those pods reach it whose service or job
/// names it, and everybody the ports that are published. So a change of who reaches whom is a
/// change of the one that reaches, as it is in the model.
pub(super) fn policy(part: &Part<'_>) -> Option<Manifest> {
    part.template.reaches.as_ref()?;
    let mut rules = vec![NetworkPolicyIngressRule {
        from: Some(vec![NetworkPolicyPeer {
            pod_selector: Some(callers(&part.target.app.name, part.name)),
            ..NetworkPolicyPeer::default()
        }]),
        ports: None,
    }];
    let endpoint = part.target.endpoint(part.name);
    let ports = endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    let published: Vec<NetworkPolicyPort> = ports
        .filter(|port| port.publish != Publish::Internal)
        .map(|port| NetworkPolicyPort {
            port: Some(IntOrString::Int(port.port.into())),
            protocol: Some(wire_protocol(port.protocol)),
            ..NetworkPolicyPort::default()
        })
        .collect();
    if !published.is_empty() {
        rules.push(NetworkPolicyIngressRule { from: None, ports: Some(published) });
    }
    Some(Manifest::of(&NetworkPolicy {
        metadata: part.metadata(part.object_name()),
        spec: Into::into(NetworkPolicySpec {
            ingress: Some(rules),
            pod_selector: Into::into(LabelSelector {
                match_labels: Some(part.selector()),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".into()]),
            ..NetworkPolicySpec::default()
        }),
    }))
}

fn callers(app: &AppName, service: &ServiceName) -> LabelSelector {
    let labels = [(labels::APP.to_owned(), app.to_string())];
    let reaches = (labels::reaches(service), "true".to_owned());
    LabelSelector {
        match_labels: Some(BTreeMap::from_iter(labels.into_iter().chain([reaches]))),
        ..LabelSelector::default()
    }
}
