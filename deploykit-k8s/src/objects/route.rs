//! Routes: who is reached by the host name and path of an HTTP request.

use std::collections::{BTreeMap, BTreeSet};

use deploykit_core::model::{Publish, Route, SecretName};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS, ServiceBackendPort,
};

use super::{Manifest, Part, secret_object};

/// The Ingress of a service that has routes.
pub(super) fn ingress(part: &Part<'_>) -> Option<Manifest> {
    let endpoint = part.target.endpoint(part.name)?;
    let mut rules: BTreeMap<&str, Vec<HTTPIngressPath>> = BTreeMap::new();
    let mut certificates: BTreeMap<&SecretName, BTreeSet<&str>> = BTreeMap::new();
    for port in &endpoint.ports {
        let Publish::Route(Route { host, path, tls }) = &port.publish else { continue };
        rules.entry(host).or_default().push(HTTPIngressPath {
            backend: IngressBackend {
                service: Some(IngressServiceBackend {
                    name: part.object_name(),
                    port: Some(ServiceBackendPort {
                        number: Some(port.port.into()),
                        ..ServiceBackendPort::default()
                    }),
                }),
                ..IngressBackend::default()
            },
            path: Some(path.clone()),
            path_type: "Prefix".into(),
        });
        if let Some(secret) = tls {
            certificates.entry(secret).or_default().insert(host);
        }
    }
    if rules.is_empty() {
        return None;
    }
    let rules = rules.into_iter().map(|(host, paths)| IngressRule {
        host: Some(host.to_owned()),
        http: Some(HTTPIngressRuleValue { paths }),
    });
    let app = &part.target.app.name;
    let tls = certificates.into_iter().map(|(secret, hosts)| IngressTLS {
        hosts: Some(hosts.into_iter().map(str::to_owned).collect()),
        secret_name: endpoint.certificates.get(secret).map(|v| certificate_object(app, secret, *v)),
    });
    Some(Manifest::of(&Ingress {
        metadata: part.metadata(part.object_name()),
        spec: Into::into(IngressSpec {
            ingress_class_name: part.config.ingress_class.clone(),
            rules: Some(rules.collect()),
            tls: Some(tls.collect::<Vec<_>>()).filter(|tls| !tls.is_empty()),
            ..IngressSpec::default()
        }),
        status: Default::default(),
    }))
}

/// The name of the Secret that an Ingress takes one version of a certificate from.
pub(crate) fn certificate_object(
    app: &deploykit_core::model::AppName,
    secret: &SecretName,
    version: u64,
) -> String {
    format!("{}.tls", secret_object(app, secret, version))
}
