//! Who pods are to the cluster, and names that lead to each of them.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;

use deploykit_conformance::testapp;
use deploykit_core::Instance;
use deploykit_core::memory::dial;
use deploykit_core::model::*;

use super::reach::{field, objects};
use super::{Bed, image, kubectl, web};

impl Bed {
    /// The instances of a service that are ready.
    async fn instances(&self, service: &str) -> Vec<Instance> {
        let seen = self.deployer.status(&self.app).await.unwrap().observation;
        seen.instances.into_iter().filter(|i| i.service.as_str() == service && i.ready).collect()
    }

    /// Their pods.
    async fn pods(&self, service: &str) -> Vec<String> {
        let instances = self.instances(service).await.into_iter();
        instances.map(|instance| format!("pod/{}", instance.id)).collect()
    }

    /// What the first instance of a service answers.
    async fn ask(&self, service: &str, path: &str) -> String {
        let instances = self.instances(service).await;
        let Address { host, port } = instances[0].addresses[0].clone();
        let mut stream = TcpStream::connect((host.as_str(), port)).unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{path}: {answer}");
        body.to_owned()
    }
}

pub(crate) async fn an_account_of_its_own_has_its_token_where_that_is_asked_for() {
    let bed = Bed::new().await;
    let app = |token| {
        let web = web().service_account(ServiceAccount { token });
        let job = Job::build("once", image()).arg(testapp::WORD).env(dial::EXIT_AFTER_MS, "50");
        let job = job.service_account(ServiceAccount { token: false });
        bed.build().service(web).job(job).validate().unwrap()
    };
    bed.up(app(true)).await.unwrap();
    let accounts: BTreeSet<String> = objects(&bed, "serviceaccounts").into_iter().collect();
    let named = |name: &str| format!("serviceaccount/{}-{name}", bed.app);
    assert_eq!(accounts, BTreeSet::from([named("once"), named("web")]));
    let token =
        bed.ask("web", "/file?path=/var/run/secrets/kubernetes.io/serviceaccount/token").await;
    let whoami = ["auth", "whoami", "--output", "jsonpath={.status.userInfo.username}"];
    let whoami = kubectl(&[&whoami[..], &["--token", token.trim()]].concat(), "");
    assert_eq!(whoami, format!("system:serviceaccount:default:{}-web", bed.app));
    assert!(bed.plan(app(true)).await.is_empty(), "it is no drift");

    bed.up(app(false)).await.unwrap();
    let pod = bed.pods("web").await.remove(0);
    assert_eq!(field(&pod, "{.spec.serviceAccountName}"), format!("{}-web", bed.app));
    assert_eq!(field(&pod, "{.spec.volumes[*].projected.sources[*].serviceAccountToken}"), "");

    bed.up(bed.only(web())).await.unwrap();
    assert_eq!(objects(&bed, "serviceaccounts"), [""; 0], "accounts that nobody has any more");
    let pod = bed.pods("web").await.remove(0);
    assert_eq!(field(&pod, "{.spec.serviceAccountName}"), "default");
    bed.down().await;
}

pub(crate) async fn a_headless_name_leads_to_each_instance() {
    let bed = Bed::new().await;
    let store = |mode| {
        Service::build("store", image())
            .arg(testapp::WORD)
            .replicas(2)
            .port(Port::http(8080))
            .endpoint_mode(mode)
            .readiness(Probe::http("/healthz"))
            .volume("own")
            .update(Update::rolling().surge(0).unavailable(1))
    };
    let name = format!("{}-store", bed.app);
    let web = || {
        // Each instance by its own name, as members of a cluster know each other.
        let with = |web: ServiceBuilder, n: u32| {
            let web = web.env(format!("N{n}_SERVICE_HOST"), format!("{name}-{n}.{name}"));
            web.env(format!("N{n}_SERVICE_PORT"), "8080")
        };
        with(with(web(), 0), 1).connects_to("store")
    };
    let app = |mode| {
        let build = bed.build().volume("own", VolumeScope::PerReplica);
        build.service(store(mode)).service(web()).validate().unwrap()
    };
    bed.up(app(EndpointMode::Dnsrr)).await.unwrap();
    let service = format!("service/{name}");
    assert_eq!(field(&service, "{.spec.clusterIP}"), "None");
    for n in 0..2 {
        let facts = bed.ask("web", &format!("/peer?name=n{n}")).await;
        assert!(facts.contains(&format!("{name}-{n}")), "{facts}");
    }
    let facts = bed.ask("web", "/peer?name=store").await;
    assert!(facts.contains(&format!("{name}-")), "its own name leads to one of them: {facts}");
    assert!(bed.plan(app(EndpointMode::Dnsrr)).await.is_empty(), "it is no drift");

    // It gets an address, and loses it again, without a change of the instances.
    let before = bed.pods("store").await;
    bed.up(app(EndpointMode::Vip)).await.unwrap();
    assert_ne!(field(&service, "{.spec.clusterIP}"), "None");
    bed.up(app(EndpointMode::Dnsrr)).await.unwrap();
    assert_eq!(field(&service, "{.spec.clusterIP}"), "None");
    assert_eq!(bed.pods("store").await, before);
    bed.down().await;
}
