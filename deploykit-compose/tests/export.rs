//! Apps come back from the Compose files that are written of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use deploykit_compose::{ComposeFile, LoadOptions, from_app, load, to_app};
use deploykit_core::model::{
    App, BindMount, Bytes, Condition, Config, ConfigMount, Cpu, ImageBuild, ImageRef, ImageSpec,
    Job, Mount, Network, OnFailure, Port, PortName, Probe, Probes, Publish, Replicas,
    RestartPolicy, Rolling, Schedule, Secret, SecretMount, Service, Signal, Strategy, TmpfsMount,
    Update, Volume, VolumeMount, VolumeScope,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn round_trip(app: &App) -> App {
    let text = from_app(app).unwrap_or_else(|e| panic!("{e}: {:?}", e.problems()));
    let mut options = LoadOptions::new([], "/srv");
    options.normalize = false;
    options.files.push(ComposeFile { path: "compose.yaml".into(), text: Some(text.clone()) });
    let project = load(&options).unwrap_or_else(|e| panic!("{e}\n{text}"));
    to_app(&project, &BTreeSet::new()).unwrap_or_else(|e| panic!("{e}\n{text}")).app
}

/// Texts with what YAML, variables and shells make something of.
fn odd() -> impl Strategy_<Value = String> {
    prop_oneof![
        "[a-z]{1,8}",
        "[ -~]{0,12}",
        Just("$HOME ${X:-y} $$".to_owned()),
        Just("yes".to_owned()),
        Just("0x1F".to_owned()),
        Just("line\nof two: #3\n".to_owned()),
        Just("\u{e9}\t\"'\\".to_owned()),
    ]
}

use proptest::strategy::Strategy as Strategy_;

fn build() -> impl Strategy_<Value = ImageBuild> {
    let file = proptest::option::of("[a-z]{1,5}");
    let all = (file, btree_map("[a-z]{1,5}", odd(), 0..2), any::<(bool, bool)>(), odd());
    all.prop_map(|(file, args, (no_cache, pull), inline)| {
        let mut build = ImageBuild::new("/srv/web");
        build.dockerfile_inline = file.is_none().then_some(inline).filter(|t| !t.is_empty());
        (build.dockerfile, build.labels) = (file.clone().map(Into::into), args.clone());
        (build.target, build.args) = (file, args);
        (build.no_cache, build.pull) = (no_cache, pull);
        build
    })
}

fn image() -> impl Strategy_<Value = ImageSpec> {
    prop_oneof![
        "[a-z]{1,5}(:[0-9]{1,3})?".prop_map(|r| ImageSpec::Reference(ImageRef::new(r).unwrap())),
        "/[a-z]{1,5}/[a-z]{1,5}".prop_map(ImageSpec::binary),
        build().prop_map(ImageSpec::build),
    ]
}

fn seconds() -> impl Strategy_<Value = Duration> {
    (1_u64..100_000).prop_map(Duration::from_millis)
}

fn mounts() -> impl Strategy_<Value = Vec<Mount>> {
    let target = proptest::option::of(Just("/data/x".into()));
    let volume = (target, any::<bool>()).prop_map(|(target, read_only)| {
        Mount::Volume(VolumeMount { name: "data".parse().unwrap(), target, read_only })
    });
    let bind = any::<bool>().prop_map(|read_only| {
        Mount::Bind(BindMount { source: "/etc/x".into(), target: "/x".into(), read_only })
    });
    let tmpfs = proptest::option::of(1_u64..1 << 40).prop_map(|size| {
        Mount::Tmpfs(TmpfsMount { target: "/tmp/y".into(), size: size.and_then(Bytes::new) })
    });
    let target = proptest::option::of(Just("/data/key".into()));
    let secret = target
        .prop_map(|target| Mount::Secret(SecretMount { name: "key".parse().unwrap(), target }));
    let target = proptest::option::of(Just("/data/title".into()));
    let config = target
        .prop_map(|target| Mount::Config(ConfigMount { name: "title".parse().unwrap(), target }));
    // In the order of a Compose file.
    let some = |mount: BoxedStrategy<Mount>| proptest::option::of(mount);
    (
        some(volume.boxed()),
        some(bind.boxed()),
        some(tmpfs.boxed()),
        some(secret.boxed()),
        some(config.boxed()),
    )
        .prop_map(|(a, b, c, d, e)| [a, b, c, d, e].into_iter().flatten().collect())
}

fn ports() -> impl Strategy_<Value = Vec<Port>> {
    let publish = prop_oneof![
        Just(Publish::Public),
        Just(Publish::Internal),
        (1_u16..1000).prop_map(Publish::HostPort)
    ];
    let port = (prop_oneof![Just(Port::tcp(1)), Just(Port::udp(1)), Just(Port::http(1))], publish);
    vec(port, 0..4).prop_map(|ports| {
        let mut ports: Vec<Port> = ports
            .into_iter()
            .enumerate()
            .map(|(index, (port, publish))| {
                let internal = publish == Publish::Internal;
                let protocol = if internal { Default::default() } else { port.protocol };
                Port { port: 80 + index as u16, protocol, publish, name: None }
            })
            .collect();
        ports.sort_by_key(|port| port.publish == Publish::Internal);
        for port in ports.iter_mut().skip(1) {
            port.name = Some(PortName::new(format!("p{}", port.port)).unwrap());
        }
        ports
    })
}

fn probes() -> impl Strategy_<Value = Probes> {
    (seconds(), seconds(), 1_u32..9, proptest::option::of(1_u32..9), vec(odd(), 1..4)).prop_map(
        |(interval, timeout, failures, startup, mut command)| {
            command.insert(0, "/bin/check".into());
            let probe = Probe::exec(command)
                .interval(interval)
                .timeout(timeout)
                .failure_threshold(failures);
            let startup = startup.map(|more| probe.clone().failure_threshold(failures + more));
            Probes { startup, readiness: Some(probe), ..Probes::default() }
        },
    )
}

fn update() -> impl Strategy_<Value = Update> {
    let strategy = prop_oneof![
        Just(Strategy::Recreate),
        Just(Strategy::BlueGreen),
        (1_u32..5).prop_map(|surge| Strategy::Rolling(Rolling { surge, unavailable: 0 })),
        Just(Strategy::Rolling(Rolling { surge: 0, unavailable: 1 })),
    ];
    let action =
        prop_oneof![Just(OnFailure::RollBack), Just(OnFailure::Pause), Just(OnFailure::Continue)];
    (strategy, action, 0_u64..1000).prop_map(|(strategy, on_failure, monitor)| Update {
        strategy,
        on_failure,
        monitor: Duration::from_millis(monitor),
        ..Update::default()
    })
}

fn service() -> impl Strategy_<Value = Service> {
    let restart = prop_oneof![
        Just(RestartPolicy::Always),
        Just(RestartPolicy::OnFailure),
        Just(RestartPolicy::Never)
    ];
    let signal = prop_oneof![Just(Signal::Term), Just(Signal::Usr2), Just(Signal::Kill)];
    let texts = (vec(odd(), 0..3), vec(odd(), 0..3), btree_map("[A-Z]{6}", odd(), 0..3));
    let kept = (mounts(), ports(), proptest::option::of(probes()), update());
    let rest = (0_u32..4, restart, signal, seconds(), any::<bool>(), 0_u32..3000);
    (image(), texts, kept, rest).prop_map(
        |(image, (command, args, env), (mounts, ports, probes, update), rest)| {
            let (replicas, restart, signal, grace, global, millis) = rest;
            let mut service = Service::new(image);
            (service.command, service.args, service.env) = (command, args, env);
            (service.mounts, service.ports, service.update) = (mounts, ports, update);
            service.probes = probes.unwrap_or_default();
            (service.restart, service.stop_signal, service.stop_grace) = (restart, signal, grace);
            service.replicas = if global { Replicas::Global } else { Replicas::Fixed(replicas) };
            service.resources.cpu_limit = Cpu::millis(millis);
            service.resources.memory_request = Bytes::new(u64::from(millis));
            service.labels = BTreeMap::from([("a".into(), "b=$c".into())]);
            service.placement.constraints = BTreeMap::from([("disk".into(), "ssd".into())]);
            service.placement.spread = (millis % 2 == 0).then(|| "zone".into());
            service
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn an_app_comes_back(
        one in service(),
        mut two in service(),
        (image, retries, awaited) in (image(), 0_u32..4, any::<bool>()),
        content in odd(),
        internal in any::<bool>(),
    ) {
        let mut app = App::new("shop".parse().unwrap());
        app.networks.insert("back".parse().unwrap(), Network { internal });
        app.volumes.insert("data".parse().unwrap(), Volume::default());
        app.secrets.insert("key".parse().unwrap(), Secret::default());
        app.configs.insert("title".parse().unwrap(), Config { content });
        let mut job = Job::new(image);
        job.retries = retries;
        app.jobs.insert("seed".parse().unwrap(), job);
        if awaited {
            two.depends_on.insert("seed".parse().unwrap(), Condition::Completed);
        }
        two.depends_on.insert("one".parse().unwrap(), Condition::Healthy);
        two.networks.insert("back".parse().unwrap());
        if !one.ports.is_empty() {
            two.connects_to.insert("one".parse().unwrap());
        }
        app.services.insert("one".parse().unwrap(), one);
        app.services.insert("two".parse().unwrap(), two);
        prop_assume!(app.validate().is_ok());
        prop_assert_eq!(round_trip(&app), app);
    }
}

#[test]
fn what_compose_has_no_word_for_is_told_with_its_path() {
    let mut app = App::new("shop".parse().unwrap());
    app.isolated = true;
    app.registry = Some("etcd://10.0.0.1/shop".into());
    let mut web = Service::new(ImageSpec::binary("/bin/web"));
    web.ports = vec![Port::http(80)];
    web.probes.readiness = Some(Probe::http("/healthz"));
    web.probes.liveness = Some(Probe::tcp());
    web.update.progress_deadline = Duration::from_secs(5);
    app.services.insert("web".parse().unwrap(), web);
    app.volumes.insert("data".parse().unwrap(), Volume { scope: VolumeScope::PerReplica });
    let mut job = Job::new(ImageSpec::binary("/bin/job"));
    job.schedule = Some("0 3 * * *".parse::<Schedule>().unwrap());
    app.jobs.insert("nightly".parse().unwrap(), job);
    let error = from_app(&app).unwrap_err();
    let paths: Vec<&str> = error.problems().iter().map(|p| p.path.as_str()).collect();
    let expected = [
        "isolated",
        "registry",
        "services.web.ports[0].protocol",
        "services.web.probes.liveness",
        "services.web.probes.readiness.check",
        "services.web.update.progress_deadline",
        "jobs.nightly.schedule",
        "volumes.data.scope",
    ];
    assert_eq!(paths, expected);
    assert_eq!(error.problems()[0].what, "Compose cannot keep services of one network apart");
}
