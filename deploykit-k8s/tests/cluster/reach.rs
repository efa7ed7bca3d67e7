//! Who reaches what: routes with their certificates, and the policies of isolated apps.

use deploykit_core::SecretValue;
use deploykit_core::model::*;

use super::{Bed, config, kubectl, web};

/// The objects of an app, one `kind/name` each.
pub(crate) fn objects(bed: &Bed, kinds: &str) -> Vec<String> {
    let selector = format!("deploykit.dev/app={}", bed.app);
    let said = kubectl(&["get", kinds, "--selector", &selector, "--output", "name"], "");
    said.lines().map(str::to_owned).collect()
}

pub(crate) fn field(object: &str, path: &str) -> String {
    kubectl(&["get", object, "--output", &format!("jsonpath={path}")], "")
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMIIC\n-----END PRIVATE KEY-----\n";

pub(crate) async fn a_route_has_its_certificate() {
    let bed = Bed::new().await;
    let name = SecretName::new("certificate").unwrap();
    let secrets = bed.deployer.secrets(&bed.app);
    let app = |path: &str| {
        let route = Route { host: "web.test".into(), path: path.into(), tls: Some(name.clone()) };
        let port = Port::http(8081).named(PortName::new("routed").unwrap());
        let web = web().port(port.publish(Publish::Route(route)));
        bed.build().service(web).keep_revisions(1).validate().unwrap()
    };
    let missing = bed.up(app("/")).await.unwrap_err();
    assert_eq!(missing.problems()[0].path, "services.web.ports[1].publish.route.tls");
    secrets.put(&name, SecretValue::new(b"no certificate".to_vec())).await.unwrap();
    let refused = bed.up(app("/")).await.unwrap_err().to_string();
    assert!(refused.contains("it is no certificate with its key"), "{refused}");
    let both = format!("{KEY}{CERTIFICATE}");
    let version = secrets.put(&name, SecretValue::new(both.into_bytes())).await.unwrap();
    bed.up(app("/")).await.unwrap();

    let ingress = format!("ingress/{}-web", bed.app);
    let of_version = |version: u64| format!("{}.certificate.v{version}.tls", bed.app);
    assert_eq!(field(&ingress, "{.spec.rules[0].host}"), "web.test");
    assert_eq!(field(&ingress, "{.spec.tls[0].secretName}"), of_version(version));
    let secret = format!("secret/{}", of_version(version));
    assert_eq!(field(&secret, "{.type}"), "kubernetes.io/tls");
    let decoded = |key: &str| {
        let template = format!("go-template={{{{index .data \"{key}\" | base64decode}}}}");
        kubectl(&["get", &secret, "--output", &template], "")
    };
    assert_eq!(decoded("tls.crt"), CERTIFICATE);
    assert_eq!(decoded("tls.key"), KEY);

    let both = format!("{CERTIFICATE}{KEY}");
    let rotated = secrets.put(&name, SecretValue::new(both.into_bytes())).await.unwrap();
    bed.up(app("/")).await.unwrap();
    assert_eq!(field(&ingress, "{.spec.tls[0].secretName}"), of_version(rotated));
    bed.up(app("/manual")).await.unwrap();
    assert_eq!(field(&ingress, "{.spec.rules[0].http.paths[0].path}"), "/manual");
    let made = objects(&bed, "secrets");
    let kept: Vec<&String> = made.iter().filter(|name| name.ends_with(".tls")).collect();
    assert_eq!(kept, [&format!("secret/{}", of_version(rotated))], "earlier ones are collected");
    bed.up(bed.only(web())).await.unwrap();
    assert_eq!(objects(&bed, "ingresses"), [""; 0], "no route any more");
    down(bed).await;
}

pub(crate) async fn who_reaches_whom_is_written_down() {
    let mut config = config();
    config.network_policies = true;
    let bed = Bed::with(config).await;
    let store = || Service::build("store", super::image()).arg(super::testapp::WORD);
    let store = || store().port(Port::http(8080)).readiness(Probe::http("/healthz"));
    let app = || bed.build().service(web().connects_to("store")).service(store());
    bed.up(app().isolated().validate().unwrap()).await.unwrap();
    let policy = format!("networkpolicy/{}-store", bed.app);
    let from = "{.spec.ingress[0].from[0].podSelector.matchLabels}";
    assert!(field(&policy, from).contains("\"reaches.deploykit.dev/store\":\"true\""));
    assert_eq!(field(&policy, "{.spec.ingress[*].ports}"), "", "it is not published");
    let selector = format!("deploykit.dev/app={},reaches.deploykit.dev/store=true", bed.app);
    let pods = kubectl(&["get", "pods", "--selector", &selector, "--output", "name"], "");
    assert!(pods.starts_with(&format!("pod/{}-web-", bed.app)), "{pods}");
    bed.up(app().validate().unwrap()).await.unwrap();
    assert_eq!(objects(&bed, "networkpolicies"), [""; 0], "isolated no more");
    bed.up(app().isolated().validate().unwrap()).await.unwrap();
    down(bed).await;
}

/// Removes the app; nothing of it is left.
async fn down(bed: Bed) {
    let app = Bed { deployer: bed.deployer.clone(), app: bed.app.clone() };
    bed.down().await;
    let kinds = "ingresses,networkpolicies,secrets,services,deployments,configmaps,cronjobs";
    assert_eq!(objects(&app, kinds), [""; 0]);
}
