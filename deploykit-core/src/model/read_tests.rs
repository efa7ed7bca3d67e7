//! Apps of every kind are written and read alike, and no text is a panic.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::fmt::{Debug, Display};
use std::str::FromStr;
use std::time::Duration;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::strategy::Strategy;
use serde_json::Value;

use super::structure;
use crate::model::text::Path;
use crate::model::validate::Problems;
use crate::model::*;

fn name() -> impl Strategy<Value = String> {
    "[a-z]([a-z0-9-]{0,6}[a-z0-9])?"
}

fn names<T: FromStr<Err = NameError> + Debug>() -> impl Strategy<Value = T> {
    name().prop_map(|text| text.parse().unwrap())
}

/// Texts that YAML might take for something else, and any others.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        prop::sample::select(vec![
            "1",
            "007",
            "0x1f",
            "1.5",
            "1e3",
            ".nan",
            "-.inf",
            "true",
            "yes",
            "No",
            "null",
            "~",
            "",
            " ",
            "- a",
            "a: b",
            "#x",
            "a #b",
            "&a",
            "*a",
            "!t",
            "|",
            ">",
            "%",
            "@",
            "`",
            "'",
            "\"",
            "{",
            "}",
            "[",
            ",",
            "<<",
            "=",
            "---",
            "...",
            "a\nb",
            "\na\n",
            "a\n\n",
            "\t",
            "a\r\nb",
            "\u{feff}",
            "\u{85}",
            "\u{2028}",
            "ü",
            "😀",
            "\u{1b}[31m",
            "2001-01-01",
            "12:30:45",
            "1_000",
            "? a",
        ])
        .prop_map(str::to_owned),
        "[ -~]{0,12}",
        "\\PC{0,6}",
        any::<String>(),
    ]
}

fn duration() -> impl Strategy<Value = Duration> {
    (0_u64..40_000_000_000_000).prop_map(Duration::from_micros)
}

fn check() -> impl Strategy<Value = Check> {
    prop_oneof![
        (text(), any::<Option<u16>>(), btree_map(text(), text(), 0..2))
            .prop_map(|(path, port, headers)| Check::Http(HttpCheck { path, port, headers })),
        any::<Option<u16>>().prop_map(|port| Check::Tcp(PortCheck { port })),
        vec(text(), 0..3).prop_map(|command| Check::Exec(ExecCheck { command })),
        (text(), any::<Option<u16>>())
            .prop_map(|(service, port)| Check::Grpc(GrpcCheck { service, port })),
    ]
}

fn probe() -> impl Strategy<Value = Probe> {
    (check(), duration(), duration(), duration(), any::<u32>(), any::<u32>()).prop_map(
        |(check, interval, timeout, delay, failures, successes)| {
            let mut probe = Probe::new(check).interval(interval).timeout(timeout);
            probe.initial_delay = delay;
            probe.success_threshold = successes;
            probe.failure_threshold(failures)
        },
    )
}

fn percent() -> impl Strategy<Value = Percent> {
    (1_u8..=100).prop_map(|p| Percent::new(p).unwrap())
}

fn update() -> impl Strategy<Value = Update> {
    let step = (percent(), duration()).prop_map(|(share, hold)| CanaryStep { share, hold });
    let on_failure =
        prop::sample::select(vec![OnFailure::RollBack, OnFailure::Pause, OnFailure::Continue]);
    let strategy = prop_oneof![
        (any::<u32>(), any::<u32>()).prop_map(|(s, u)| Update::rolling().surge(s).unavailable(u)),
        Just(Update::recreate()),
        Just(Update::blue_green()),
        vec(step, 0..3).prop_map(Update::canary),
    ];
    (strategy, duration(), duration(), on_failure).prop_map(|(u, deadline, monitor, f)| {
        u.progress_deadline(deadline).monitor(monitor).on_failure(f)
    })
}

fn port() -> impl Strategy<Value = Port> {
    let publish =
        prop_oneof![
            Just(Publish::Internal),
            Just(Publish::Public),
            any::<u16>().prop_map(Publish::HostPort),
            (text(), text(), option::of(names()))
                .prop_map(|(host, path, tls)| Publish::Route(Route { host, path, tls })),
        ];
    let protocol = prop::sample::select(vec![Protocol::Http, Protocol::Tcp, Protocol::Udp]);
    (option::of(names()), any::<u16>(), protocol, publish)
        .prop_map(|(name, port, protocol, publish)| Port { name, port, protocol, publish })
}

fn mount() -> impl Strategy<Value = Mount> {
    let size = option::of(any::<u64>()).prop_map(|n| n.and_then(Bytes::new));
    prop_oneof![
        (names(), option::of(path()), any::<bool>()).prop_map(|(name, target, read_only)| {
            Mount::Volume(VolumeMount { name, target, read_only })
        }),
        (path(), path(), any::<bool>()).prop_map(|(source, target, read_only)| Mount::Bind(
            BindMount { source, target, read_only }
        )),
        (path(), size).prop_map(|(target, size)| Mount::Tmpfs(TmpfsMount { target, size })),
        (names(), option::of(path()))
            .prop_map(|(name, target)| Mount::Secret(SecretMount { name, target })),
        (names(), option::of(path()))
            .prop_map(|(name, target)| Mount::Config(ConfigMount { name, target })),
    ]
}

fn replicas() -> impl Strategy<Value = Replicas> {
    prop_oneof![
        any::<u32>().prop_map(Replicas::Fixed),
        Just(Replicas::Global),
        (any::<u32>(), any::<u32>(), percent()).prop_map(|(min, max, target_cpu)| {
            Replicas::Autoscale(Autoscale { min, max, target_cpu })
        }),
    ]
}

fn path() -> impl Strategy<Value = std::path::PathBuf> {
    text().prop_map(std::path::PathBuf::from)
}

fn image_files() -> impl Strategy<Value = ImageFiles> {
    let base = (option::of(Just(ImageRef::new("debian:12").unwrap())), option::of(path()));
    let owner = option::of((any::<u32>(), any::<u32>()));
    let copy =
        (text(), path(), option::of(0..=0o7777u32), owner).prop_map(|(from, to, mode, owner)| {
            let owner = owner.map(|(user, group)| Owner { user, group });
            ImageCopy { from: from.into(), to, mode: mode.and_then(FileMode::new), owner }
        });
    let run = (vec(text(), 0..2), vec(text(), 0..2), option::of(text()), option::of(path()));
    let facts = (btree_map(text(), text(), 0..2), btree_map(text(), text(), 0..2), any::<bool>());
    let rest = (vec(any::<u16>(), 0..2), vec(path(), 0..2), option::of(text()));
    (base, vec(copy, 0..3), run, facts, rest).prop_map(|(base, copies, run, facts, rest)| {
        ImageFiles {
            base: base.0,
            program: base.1,
            copies,
            env: facts.0.clone(),
            entrypoint: run.0,
            cmd: run.1,
            user: run.2,
            workdir: run.3,
            ports: rest.0,
            volumes: rest.1,
            stop_signal: rest.2,
            labels: facts.0,
            annotations: facts.1,
            certificates: facts.2,
            time_zones: !facts.2,
        }
    })
}

fn image_build() -> impl Strategy<Value = ImageBuild> {
    let secret =
        prop_oneof![path().prop_map(BuildSecret::File), text().prop_map(BuildSecret::Environment),];
    let file = (path(), option::of(path()), option::of(text()), option::of(text()));
    let facts = (btree_map(text(), text(), 0..2), btree_map(text(), text(), 0..2));
    let rest = (btree_map(text(), secret, 0..2), any::<bool>(), any::<bool>());
    (file, facts, rest).prop_map(|(file, facts, rest)| {
        let (context, dockerfile, dockerfile_inline, target) = file;
        let ((args, labels), (secrets, no_cache, pull)) = (facts, rest);
        ImageBuild {
            context,
            dockerfile,
            dockerfile_inline,
            args,
            target,
            labels,
            secrets,
            no_cache,
            pull,
        }
    })
}

fn image() -> impl Strategy<Value = ImageSpec> {
    prop_oneof![
        text().prop_map(ImageSpec::binary),
        Just(ImageSpec::Reference(ImageRef::new("docker.io/library/nginx:1.27").unwrap())),
        image_files().prop_map(ImageSpec::files),
        image_build().prop_map(ImageSpec::build),
    ]
}

fn service() -> impl Strategy<Value = Service> {
    let condition =
        prop::sample::select(vec![Condition::Started, Condition::Healthy, Condition::Completed]);
    let resources = (any::<u32>(), any::<u64>()).prop_map(|(cpu, memory)| Resources {
        cpu_limit: Cpu::millis(cpu),
        memory_limit: Bytes::new(memory),
        ..Resources::default()
    });
    let placement = (btree_map(text(), text(), 0..2), option::of(text()))
        .prop_map(|(constraints, spread)| Placement { constraints, spread });
    let program = (image(), vec(text(), 0..2), vec(text(), 0..2), btree_map(text(), text(), 0..3));
    let rest =
        (resources, placement, duration(), btree_map(text(), text(), 0..2), option::of(text()));
    let peers = (btree_map(names(), condition, 0..3), btree_set(names(), 0..3), vec(mount(), 0..3));
    let own = (replicas(), vec(port(), 0..3), option::of(probe()), option::of(probe()), update());
    (program, rest, peers, own).prop_map(|(program, rest, peers, own)| {
        let mut service = Service::new(program.0);
        (service.command, service.args, service.env) = (program.1, program.2, program.3);
        (service.resources, service.placement, service.stop_grace, service.labels, service.user) =
            rest;
        (service.depends_on, service.connects_to, service.mounts) = peers;
        (
            service.replicas,
            service.ports,
            service.probes.startup,
            service.probes.readiness,
            service.update,
        ) = own;
        service
    })
}

fn job() -> impl Strategy<Value = Job> {
    let schedule = option::of(Just("*/5 0-6 1,15 * *".parse::<Schedule>().unwrap()));
    (image(), schedule, any::<u32>(), option::of(duration())).prop_map(
        |(image, schedule, retries, timeout)| {
            let mut job = Job::new(image);
            (job.schedule, job.retries, job.timeout) = (schedule, retries, timeout);
            job
        },
    )
}

fn app() -> impl Strategy<Value = App> {
    let scope = prop::sample::select(vec![VolumeScope::Shared, VolumeScope::PerReplica]);
    let volumes = btree_map(names(), scope.prop_map(|scope| Volume { scope }), 0..2);
    let secrets = btree_map(names(), any::<u32>().prop_map(|keep| Secret { keep }), 0..2);
    let configs = btree_map(names(), text().prop_map(|content| Config { content }), 0..2);
    let networks =
        btree_map(names(), any::<bool>().prop_map(|internal| Network { internal }), 0..2);
    let works = (btree_map(names(), service(), 0..3), btree_map(names(), job(), 0..2));
    let value = prop_oneof![
        text().prop_map(serde_json::Value::from),
        any::<i64>().prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        Just(serde_json::json!([null, { "deep": [] }])),
    ];
    let object = btree_map("[a-z]{1,8}", value, 0..3)
        .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>());
    let raw = btree_map("[a-z]{1,8}", btree_map(names(), object, 0..2), 0..2);
    let rest = (any::<bool>(), any::<u32>(), raw);
    (names(), works, volumes, secrets, configs, networks, rest).prop_map(
        |(name, (services, jobs), volumes, secrets, configs, networks, (isolated, keep, raw))| {
            let mut app = App::new(name);
            (app.services, app.jobs, app.volumes, app.secrets) = (services, jobs, volumes, secrets);
            (app.configs, app.networks, app.isolated, app.keep_revisions) =
                (configs, networks, isolated, keep);
            app.raw = raw;
            app
        },
    )
}

/// What is read of a file, valid or not across its fields.
fn read(text: &str) -> Result<App, String> {
    let mut problems = Problems::default();
    let app = structure(text, &mut problems);
    let problems = problems.finish();
    match app {
        Some((app, Some(_))) if problems.is_empty() => Ok(app),
        _ => Err(format!("{problems:?}\n{text}")),
    }
}

fn read_back<T: FromStr + Display + PartialEq + Debug>(text: &str) -> Result<(), TestCaseError>
where
    T::Err: Debug,
{
    if let Ok(value) = text.parse::<T>() {
        prop_assert_eq!(value.to_string().parse::<T>().unwrap(), value);
    }
    Ok(())
}

proptest! {
    #[test]
    fn an_app_is_read_back_from_yaml_and_from_json(app in app()) {
        prop_assert_eq!(read(&app.to_yaml().unwrap()), Ok(app.clone()));
        let json = serde_json::to_string_pretty(&app).unwrap();
        prop_assert_eq!(read(&json), Ok(app.clone()));
        prop_assert_eq!(serde_json::from_str::<App>(&json).unwrap(), app);
    }

    #[test]
    fn no_text_is_a_panic(text in any::<String>()) {
        let _ = App::from_yaml(&text);
    }

    #[test]
    fn no_text_that_looks_like_an_app_is_a_panic(
        text in "(\\{|\\}|\\[|\\]|: |, |- |\n|  |&a |\\*a|<<|!|'|\"|name|services|web|image|binary|ports|port|/x|1|null|\\|\n){0,40}"
    ) {
        let _ = App::from_yaml(&text);
        let _ = App::from_yaml(&format!("name: a\nservices:\n  web:\n    {text}"));
        let _ = App::from_yaml(&format!("{{name: a, services: {{web: {{image: {{binary: /x}}, {text}}}}}}}"));
    }

    /// One wrong leaf somewhere is reported at its path, and alone.
    #[test]
    fn a_wrong_leaf_is_reported_where_it_is(app in app(), at in any::<prop::sample::Index>()) {
        // Raw objects may be anything.
        let app = App { raw: Default::default(), ..app };
        let mut value = serde_json::to_value(&app).unwrap();
        let mut found = Vec::new();
        leaves(&value, String::new(), Path::default(), &mut found);
        let (pointer, path) = at.get(&found);
        *value.pointer_mut(pointer).unwrap() = serde_json::json!([[]]);
        let mut problems = Problems::default();
        structure(&value.to_string(), &mut problems);
        let paths: Vec<String> = problems.finish().into_iter().map(|p| p.path).collect();
        prop_assert_eq!(paths, [path.to_string()]);
    }

    #[test]
    fn parsed_texts_are_written_and_read_alike(text in prop_oneof![text(), "[0-9.]{1,6}(m|k|Ki|Mi|G|B|%)?", name()]) {
        read_back::<Cpu>(&text)?;
        read_back::<Bytes>(&text)?;
        read_back::<Percent>(&text)?;
        read_back::<Schedule>(&text)?;
        read_back::<ServiceName>(&text)?;
        if let Ok(image) = ImageRef::new(text.clone()) {
            prop_assert_eq!(image.as_str(), text);
        }
    }

    #[test]
    fn amounts_are_written_without_loss(millis in 1_u32.., bytes in 1_u64.., percent in percent(), replicas in replicas()) {
        let cpu = Cpu::millis(millis).unwrap();
        prop_assert_eq!(cpu.to_string().parse(), Ok(cpu));
        let bytes = Bytes::new(bytes).unwrap();
        prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
        prop_assert_eq!(percent.to_string().parse(), Ok(percent));
        let json = serde_json::to_string(&replicas).unwrap();
        prop_assert_eq!(serde_json::from_str::<Replicas>(&json).unwrap(), replicas);
    }
}

/// The scalars of a value: by JSON pointer, and by path.
fn leaves(value: &Value, at: String, path: Path, found: &mut Vec<(String, Path)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let escaped = key.replace('~', "~0").replace('/', "~1");
                leaves(value, format!("{at}/{escaped}"), path.field(key), found);
            }
        }
        Value::Array(list) => {
            for (index, value) in list.iter().enumerate() {
                leaves(value, format!("{at}/{index}"), path.index(index), found);
            }
        }
        _ => found.push((at, path)),
    }
}
