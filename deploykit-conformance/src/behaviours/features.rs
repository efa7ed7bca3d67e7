//! What a backend declares is honoured, and what it does not is refused.

use std::time::Duration;

use deploykit_core::model::*;
use deploykit_core::{Capabilities, ErrorKind, Feature};

use super::Behaviour;
use crate::test::Test;
use crate::testapp::WORD;

/// Every feature, with its name.
const ALL: [(Feature, &str); 23] = [
    (Feature::Executables, "executables"),
    (Feature::Images, "images"),
    (Feature::Dockerfiles, "dockerfiles"),
    (Feature::Resources, "resources"),
    (Feature::Users, "users"),
    (Feature::Isolation, "isolation"),
    (Feature::Placement, "placement"),
    (Feature::ServiceAccounts, "service_accounts"),
    (Feature::Udp, "udp"),
    (Feature::HostPorts, "host_ports"),
    (Feature::Routes, "routes"),
    (Feature::Headless, "headless"),
    (Feature::Global, "global"),
    (Feature::Autoscale, "autoscale"),
    (Feature::Schedules, "schedules"),
    (Feature::RestartPolicies, "restart_policies"),
    (Feature::MountTargets, "mount_targets"),
    (Feature::PerReplicaVolumes, "per_replica_volumes"),
    (Feature::ExecProbes, "exec_probes"),
    (Feature::GrpcProbes, "grpc_probes"),
    (Feature::BlueGreen, "blue_green"),
    (Feature::Canary, "canary"),
    (Feature::Raw, "raw"),
];

/// A test for each feature: of its use, or of its refusal.
pub(super) fn all(capabilities: &Capabilities) -> Vec<Behaviour> {
    let behaviour = |(feature, word): (Feature, &'static str)| {
        if capabilities.has(feature) {
            Behaviour {
                name: format!("features::{word}_is_honoured"),
                run: Box::new(move |t| Box::pin(async move { honoured(&t, feature).await })),
            }
        } else {
            Behaviour {
                name: format!("features::{word}_is_refused"),
                run: Box::new(move |t| Box::pin(async move { refused(&t, feature, word).await })),
            }
        }
    };
    ALL.into_iter().map(behaviour).collect()
}

/// An app that uses the feature, and no other that can be avoided.
fn app_with(t: &Test, feature: Feature) -> App {
    let web = t.service("web", "1");
    let image = |image| {
        let web = Service::build("web", image).arg(WORD).port(Port::http(8080).public());
        web.readiness(crate::apps::readiness())
    };
    let web = match feature {
        // One that is not declared is refused without a look at the image itself.
        Feature::Executables => match t.image() {
            own @ ImageSpec::Binary(_) => image(own.clone()),
            _ => image(ImageSpec::binary("/bin/true")),
        },
        Feature::Images => match t.image() {
            own @ ImageSpec::Reference(_) => image(own.clone()),
            _ if t.settings.reference.is_some() => {
                image(ImageSpec::Reference(t.settings.reference.clone().unwrap()))
            }
            _ => image(ImageSpec::Reference(ImageRef::new("registry.invalid/testapp:1").unwrap())),
        },
        Feature::Dockerfiles => {
            let build = t.settings.build.clone();
            image(ImageSpec::build(build.unwrap_or_else(|| ImageBuild::new("."))))
        }
        Feature::Resources => {
            let cpu_limit = "500m".parse().ok();
            web.resources(Resources { cpu_limit, ..Resources::default() })
        }
        Feature::Users => web.user("65534"),
        Feature::Isolation => return t.build().isolated().service(web).validate().unwrap(),
        Feature::Placement => {
            let mut app = t.only(web);
            let web = app.services.get_mut("web").unwrap();
            web.placement.spread = Some("zone".into());
            return app;
        }
        Feature::ServiceAccounts => web.service_account(ServiceAccount { token: true }),
        Feature::Udp => web.port(Port::udp(9000).named(PortName::new("udp").unwrap())),
        Feature::HostPorts => {
            let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let port = Port::tcp(9000).named(PortName::new("tcp").unwrap());
            web.port(port.publish(Publish::HostPort(free.local_addr().unwrap().port())))
        }
        Feature::Routes => {
            let route = Route { host: "kit.test".into(), path: "/".into(), tls: None };
            let port = Port::http(9000).named(PortName::new("routed").unwrap());
            web.port(port.publish(Publish::Route(route)))
        }
        Feature::Headless => {
            let image = t.image().clone();
            let web = Service::build("web", image).arg(WORD).port(Port::http(8080));
            web.readiness(crate::apps::readiness()).endpoint_mode(EndpointMode::Dnsrr)
        }
        Feature::Global => web.global(),
        Feature::Autoscale => {
            let scale = Autoscale { min: 1, max: 2, target_cpu: Percent::new(50).unwrap() };
            let cpu_request = "50m".parse().ok();
            let web = match t.backend().capabilities().has(Feature::Resources) {
                true => web.resources(Resources { cpu_request, ..Resources::default() }),
                false => web,
            };
            web.autoscale(scale)
        }
        Feature::Schedules => {
            let job = t.job("nightly").schedule("0 3 * * *");
            return t.build().service(web).job(job).validate().unwrap();
        }
        Feature::RestartPolicies => web.restart(RestartPolicy::OnFailure),
        Feature::MountTargets => {
            let mount = TmpfsMount { target: "/kit-scratch".into(), size: None };
            web.mount(Mount::Tmpfs(mount))
        }
        Feature::PerReplicaVolumes => {
            let build = t.build().volume("own", VolumeScope::PerReplica);
            let web = web.volume("own").update(Update::rolling().surge(0).unavailable(1));
            return build.service(web).validate().unwrap();
        }
        Feature::ExecProbes => web.readiness(quick(Probe::exec(t.command(&["healthy"])))),
        Feature::GrpcProbes => web.readiness(quick(Probe::grpc())),
        Feature::BlueGreen => web.update(Update::blue_green()),
        Feature::Canary => {
            let share = Percent::new(50).unwrap();
            let step = CanaryStep { share, hold: Duration::ZERO };
            web.replicas(2).update(Update::canary([step]))
        }
        Feature::Raw => {
            // One that is not declared is refused without a look at the object itself.
            let object = t.settings.raw.map_or_else(|| serde_json::json!({}), |raw| raw(&t.app));
            let build = t.build().raw(t.backend().name(), "raw", object);
            return build.service(web).validate().unwrap();
        }
        other => panic!("the kit does not know the feature {other:?}"),
    };
    t.only(web)
}

fn quick(probe: Probe) -> Probe {
    probe.interval(Duration::from_millis(200)).timeout(Duration::from_secs(5))
}

async fn honoured(t: &Test, feature: Feature) {
    let app = app_with(t, feature);
    t.up(app.clone()).await.unwrap();
    assert!(!t.instances("web").await.is_empty());
    assert!(t.instances("web").await.values().all(|i| i.ready));
    assert!(t.plan(app).await.unwrap().is_empty(), "applying it twice is no drift");
    if matches!(feature, Feature::ExecProbes | Feature::GrpcProbes) {
        probe_is_asked(t, feature).await;
    }
}

/// A probe that always passes would be none.
async fn probe_is_asked(t: &Test, feature: Feature) {
    let mut app = app_with(t, feature);
    let web = app.services.get_mut("web").unwrap();
    web.env.insert(deploykit_core::memory::dial::UNHEALTHY_AFTER_MS.into(), "0".into());
    web.update = Update::rolling().progress_deadline(Duration::from_secs(4));
    let error = t.up(app).await.unwrap_err();
    let of_probe = |d: &deploykit_core::Diagnosis| matches!(&d.reason, deploykit_core::Reason::ProbeFailing { probe, .. } if probe == "readiness");
    assert!(error.diagnoses().iter().any(of_probe), "{error}");
}

async fn refused(t: &Test, feature: Feature, word: &str) {
    let before = t.calls();
    let refused = t.deployer().prepare(app_with(t, feature)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported, "{refused}");
    assert!(!refused.problems().is_empty(), "{refused}");
    assert!(refused.problems().iter().all(|p| !p.path.is_empty()), "{refused}");
    assert!(refused.to_string().contains(t.backend().name()), "it names the backend: {refused}");
    assert!(refused.to_string().contains(word), "it says what to allow: {refused}");
    assert_eq!(t.calls(), before, "before anything is done");
    assert!(t.seen().await.is_empty());
}
