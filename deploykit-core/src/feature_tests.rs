//! Every feature is found in an app, refused where it is not honoured, and omitted where allowed.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::capability::{Fencing, SelfHeal};

/// An app that uses that feature (and none but executables beside), the path where it does, and
/// whether an app can be without it. A new feature does not compile until it has one.
fn sample(feature: Feature) -> (String, &'static str, bool) {
    let service = |rest: &str| format!("services: {{x: {{image: {{binary: /x}}, {rest}}}}}");
    let (rest, path, allowed) = match feature {
        Feature::Executables => (service(""), "services.x.image.binary", false),
        Feature::Images => (
            "services: {x: {image: {reference: nginx}}}".into(),
            "services.x.image.reference",
            false,
        ),
        Feature::Dockerfiles => (
            "services: {x: {image: {build: {context: .}}}}".into(),
            "services.x.image.build",
            false,
        ),
        Feature::Resources => {
            (service("resources: {memory_limit: 1Gi}"), "services.x.resources", true)
        }
        Feature::Users => (service("user: nobody"), "services.x.user", true),
        Feature::Isolation => ("isolated: true, services: {x: {image: {binary: /x}}}".into(), "isolated", true),
        Feature::Placement => (service("placement: {spread: zone}"), "services.x.placement", true),
        Feature::ServiceAccounts => {
            (service("service_account: {token: true}"), "services.x.service_account", true)
        }
        Feature::Udp => {
            (service("ports: [{port: 53, protocol: udp}]"), "services.x.ports[0].protocol", false)
        }
        Feature::HostPorts => (
            service("ports: [{port: 80, publish: {host_port: 80}}]"),
            "services.x.ports[0].publish.host_port",
            true,
        ),
        Feature::Routes => (
            service("ports: [{port: 80, protocol: http, publish: {route: {host: a.example}}}]"),
            "services.x.ports[0].publish.route",
            true,
        ),
        Feature::Headless => (
            service("ports: [{port: 80}], endpoint_mode: dnsrr"),
            "services.x.endpoint_mode",
            true,
        ),
        Feature::Global => (service("replicas: global"), "services.x.replicas", true),
        Feature::Autoscale => (
            service("replicas: {autoscale: {min: 2, max: 4, target_cpu: 50%}}"),
            "services.x.replicas.autoscale",
            true,
        ),
        Feature::Schedules => (
            "services: {x: {image: {binary: /x}}}, jobs: {j: {image: {binary: /j}, schedule: '0 3 * * *'}}".into(),
            "jobs.j.schedule",
            true,
        ),
        Feature::RestartPolicies => (service("restart: never"), "services.x.restart", true),
        Feature::MountTargets => {
            (service("mounts: [{tmpfs: {target: /tmp}}]"), "services.x.mounts[0].tmpfs", false)
        }
        Feature::PerReplicaVolumes => (
            format!("volumes: {{v: {{scope: per_replica}}}}, {}", service("")),
            "volumes.v.scope",
            false,
        ),
        Feature::ExecProbes => (
            service("probes: {readiness: {check: {exec: {command: [/ok]}}}}"),
            "services.x.probes.readiness.check.exec",
            true,
        ),
        Feature::GrpcProbes => (
            service("ports: [{port: 80}], probes: {liveness: {check: {grpc: {}}}}"),
            "services.x.probes.liveness.check.grpc",
            true,
        ),
        Feature::BlueGreen => {
            (service("update: {strategy: blue_green}"), "services.x.update.strategy", true)
        }
        Feature::Canary => (
            service("replicas: 2, update: {strategy: {canary: [{share: 50%}]}}"),
            "services.x.update.strategy.canary",
            true,
        ),
        Feature::Raw => (
            "raw: {toy: {o: {kind: O}}}, services: {x: {image: {binary: /x}}}".into(),
            "raw.toy",
            true,
        ),
    };
    (format!("{{name: a, {rest}}}"), path, allowed)
}

fn all_but(feature: Feature) -> Capabilities {
    let others = Feature::ALL.iter().copied().filter(|other| *other != feature);
    Capabilities::new(SelfHeal::None, Fencing::Detect, others)
}

#[test]
fn each_feature_is_refused_where_it_is_not_honoured() {
    for &feature in Feature::ALL {
        let (yaml, path, _) = sample(feature);
        let app = App::from_yaml(&yaml).unwrap_or_else(|e| panic!("{yaml}: {e}"));
        let problems = all_but(feature).check(&app, "toy", &BTreeSet::new());
        let paths: Vec<&str> = problems.iter().map(|p| p.path.as_str()).collect();
        assert_eq!(paths, [path], "{feature}");
        let what = format!("the backend toy does not support `{feature}`");
        assert_eq!(problems[0].what, what);
    }
}

#[test]
fn each_feature_is_honoured_where_it_is_declared() {
    let all = Capabilities::new(SelfHeal::None, Fencing::Detect, Feature::ALL.iter().copied());
    for &feature in Feature::ALL {
        let app = App::from_yaml(&sample(feature).0).unwrap();
        assert_eq!(all.check(&app, "toy", &BTreeSet::new()), []);
        assert_eq!(all.without(app.clone(), &BTreeSet::from([feature])), app);
    }
}

#[test]
fn raw_objects_are_for_one_backend() {
    let app = App::from_yaml(&sample(Feature::Raw).0).unwrap();
    let all = Capabilities::new(SelfHeal::None, Fencing::Detect, Feature::ALL.iter().copied());
    let problems = all.check(&app, "other", &BTreeSet::from([Feature::Raw]));
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["raw.toy: these objects are for toy, and this is other (leave them out)"]);
}

#[test]
fn an_omission_is_allowed_by_name_where_an_app_can_be_without() {
    for &feature in Feature::ALL {
        let (yaml, path, can) = sample(feature);
        let app = App::from_yaml(&yaml).unwrap();
        let backend = all_but(feature);
        let allowed = BTreeSet::from([feature]);
        let refused = backend.check(&app, "toy", &allowed);
        let without = backend.without(app.clone(), &allowed);
        if can {
            assert_eq!(refused, [], "{feature}");
            assert_ne!(without, app);
            assert_eq!(
                backend.check(&without, "toy", &BTreeSet::new()),
                [],
                "nothing of it is left"
            );
            assert!(without.validate().is_ok());
        } else {
            assert_eq!(refused.len(), 1, "{feature} at {path}");
            assert_eq!(without, app);
        }
    }
}

#[test]
fn another_omission_is_not_enough() {
    let app = App::from_yaml(&sample(Feature::Users).0).unwrap();
    let allowed = BTreeSet::from([Feature::Resources]);
    let problems = all_but(Feature::Users).check(&app, "local", &allowed);
    assert_eq!(
        problems[0].to_string(),
        "services.x.user: the backend local does not support `users` (remove it, or allow `users`: \
         instances run as the backend's own user)"
    );
}

#[test]
fn words_are_read_back_and_serialised_alike() {
    for &feature in Feature::ALL {
        assert_eq!(feature.to_string().parse(), Ok(feature));
        assert_eq!(serde_json::to_value(feature).unwrap(), feature.as_str());
    }
    let error = "resource".parse::<Feature>().unwrap_err().to_string();
    assert!(
        error.starts_with("there is no feature `resource` (did you mean `resources`?"),
        "{error}"
    );
}
