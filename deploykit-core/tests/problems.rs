//! What is said of a wrong app: the exact text, and all of it at once.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use deploykit_core::ErrorKind;
use deploykit_core::model::{App, ImageSpec, Port, Probe, Service};

/// The problems of a file, as they are printed.
fn problems(yaml: &str) -> Vec<String> {
    match App::from_yaml(yaml) {
        Ok(app) => panic!("no problem in {app:?}"),
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Invalid);
            error.problems().iter().map(ToString::to_string).collect()
        }
    }
}

/// The problems of a service `web` with these fields.
fn of_web(fields: &str) -> Vec<String> {
    problems(&format!("{{name: blog, services: {{web: {{image: {{binary: /web}}, {fields}}}}}}}"))
}

#[test]
fn an_unknown_field() {
    assert_eq!(
        of_web("ports: [{port: 80}, {port: 81, protocoll: http}]"),
        ["services.web.ports[1].protocoll: unknown field `protocoll` (did you mean `protocol`? \
          known: name, port, protocol, publish)"]
    );
}

#[test]
fn a_duplicate_name() {
    let yaml = "
name: blog
services:
  web:
    image: {binary: /web}
  web:
    image: {binary: /other}
";
    assert_eq!(
        problems(yaml),
        [
            "services.web: `web` is there twice, in lines 4 and 6 (give each its own name, or keep one)"
        ]
    );
    let yaml = "
name: blog
services: {web: {image: {binary: /web}}}
jobs: {web: {image: {binary: /web}}}
";
    assert_eq!(
        problems(yaml),
        ["jobs.web: `web` is the name of a service too (give each its own name)"]
    );
    let web = || Service::build("web", ImageSpec::binary("/web"));
    let error = App::build("blog").service(web()).service(web()).validate().unwrap_err();
    assert_eq!(
        error.to_string(),
        "validate the app: 1 problem\n  - services.web: `web` is there twice (give each its own name)"
    );
}

#[test]
fn a_dependency_cycle_is_named() {
    let yaml = "
name: blog
services:
  gateway: {image: {binary: /x}, depends_on: {posts: healthy}}
  posts: {image: {binary: /x}, depends_on: {migrate: completed, users: started}}
  users: {image: {binary: /x}}
jobs:
  migrate: {image: {binary: /x}, depends_on: {gateway: healthy}}
";
    assert_eq!(
        problems(yaml),
        ["services.gateway.depends_on.posts: `gateway` waits for itself: \
          gateway -> posts -> migrate -> gateway (remove one of these; `connects_to` makes nothing \
          wait)"]
    );
    assert_eq!(
        of_web("depends_on: {web: healthy}"),
        ["services.web.depends_on.web: `web` waits for itself (remove it)"]
    );
}

#[test]
fn names_colliding_in_the_environment_contract() {
    let yaml = "
name: blog
services:
  user-db: {image: {binary: /x}, ports: [{port: 5432}]}
  port: {image: {binary: /x}, ports: [{port: 80}]}
  web:
    image: {binary: /x}
    ports: [{port: 80}, {name: service-host, port: 81}, {name: admin, port: 82}]
    connects_to: [user-db, port]
    env: {USER_DB_SERVICE_HOST: db.example, PORT_ADMIN: '1', SECRETS_DIR: /x, FREE: x}
";
    assert_eq!(
        problems(yaml),
        [
            "services.web.ports: `PORT_SERVICE_HOST` would be set by the port `service-host` and by \
             the address of `port` (give the port another name)",
            "services.web.env.PORT_ADMIN: `PORT_ADMIN` is set by the port `admin` (remove it, and \
             use the value that is set)",
            "services.web.env.SECRETS_DIR: `SECRETS_DIR` is set by the environment contract (remove \
             it, and use the value that is set)",
            "services.web.env.USER_DB_SERVICE_HOST: `USER_DB_SERVICE_HOST` is set by the address of \
             `user-db` (remove it, and use the value that is set)",
        ]
    );
}

#[test]
fn a_port_given_twice() {
    assert_eq!(
        of_web(
            "ports: [{port: 80}, {name: a, port: 81}, {name: a, port: 80}, {port: 80, protocol: udp}]"
        ),
        [
            "services.web.ports[2].port: port 80 is there twice, in ports[0] too (declare each port once)",
            "services.web.ports[2].name: the name `a` is there twice, in ports[1] too (give each its own name)",
        ]
    );
    let yaml = "
name: blog
services:
  api: {image: {binary: /x}, ports: [{port: 1, publish: {host_port: 80}}]}
  web: {image: {binary: /x}, ports: [{port: 1, protocol: http, publish: {host_port: 80}}]}
";
    assert_eq!(
        problems(yaml),
        ["services.web.ports[0].publish: the host's TCP port 80 is taken by \
          services.api.ports[0].publish already (choose another)"]
    );
}

#[test]
fn replicas_with_a_fixed_port() {
    assert_eq!(
        of_web("replicas: 2, ports: [{port: 80}], env: {PORT: '80'}"),
        [
            "services.web.env.PORT: `PORT` is set by the environment contract (remove it, and listen \
          where PORT says: replicas cannot share a fixed port)"
        ]
    );
    assert_eq!(
        of_web(
            "replicas: 2, update: {strategy: recreate}, \
             ports: [{port: 53, protocol: udp, publish: {host_port: 53}}]"
        ),
        ["services.web.ports[0].publish.host_port: replicas cannot share the host's UDP port 53: \
          datagrams are not balanced (use 1 replica and `update: {strategy: recreate}`, or no host \
          port)"]
    );
    // One at a time, in updates too; and HTTP and TCP are balanced.
    for fine in [
        "update: {strategy: recreate}, ports: [{port: 53, protocol: udp, publish: {host_port: 53}}]",
        "replicas: 3, ports: [{port: 80, publish: {host_port: 80}}]",
    ] {
        let yaml = format!("{{name: a, services: {{web: {{image: {{binary: /web}}, {fine}}}}}}}");
        assert!(App::from_yaml(&yaml).is_ok(), "{fine}");
    }
}

#[test]
fn a_probe_on_an_undeclared_port() {
    assert_eq!(
        of_web(
            "ports: [{port: 80}, {port: 81}], probes: {readiness: {check: {tcp: {port: 8080}}}}"
        ),
        [
            "services.web.probes.readiness.check.tcp.port: port 8080 is not declared (declare it under \
          ports, or use one of: 80, 81)"
        ]
    );
    let web =
        Service::build("web", ImageSpec::binary("/web")).readiness(Probe::http("/").at_port(1));
    let error = App::build("blog").service(web).validate().unwrap_err();
    assert_eq!(
        error.problems()[0].to_string(),
        "services.web.probes.readiness.check.http.port: port 1 is not declared (declare it: `ports: \
         [{port: 1}]`)"
    );
    assert_eq!(
        of_web("probes: {liveness: {check: {http: {path: /}}}}"),
        ["services.web.probes.liveness.check.http: there is no port to ask: the service declares \
          none (declare one under ports, or use an exec probe)"]
    );
}

#[test]
fn an_undeclared_secret() {
    let yaml = "
name: blog
secrets: {session-key: {}}
services: {web: {image: {binary: /x}, mounts: [{secret: {name: sesion-key}}]}}
";
    assert_eq!(
        problems(yaml),
        ["services.web.mounts[0].secret.name: no secret `sesion-key` is declared (did you mean \
          `session-key`? known: session-key)"]
    );
    assert_eq!(
        of_web("mounts: [{secret: {name: key}}]"),
        [
            "services.web.mounts[0].secret.name: no secret `key` is declared (declare it under `secrets:`)"
        ]
    );
}

#[test]
fn several_in_one_error() {
    let yaml = "
name: Blog
services:
  web:
    image: {binary: /web}
    prots: []
    ports: [{port: eighty}, {port: 80, protocol: htp}, {name: x}]
    env: {DEBUG: 1}
  api:
    replicas: {autoscale: {min: 3, max: 1, target_cpu: 120%}}
  db:
    image: {binary: /db}
    depends_on: {api: healthy, cache: healthy, migrate: healthy}
    mounts: [{volume: {name: data}}]
jobs:
  migrate: {image: nginx}
";
    let error = App::from_yaml(yaml).unwrap_err().to_string();
    let name = "use 1 to 40 of a-z, 0-9 and -, beginning with a letter and not ending in -";
    let fields = "known: image, command, args, env, workdir, user, resources, mounts, depends_on, \
                  connects_to, networks, placement, service_account, stop_signal, stop_grace, labels, \
                  replicas, ports, endpoint_mode, probes, update, restart";
    let lines = [
        "read the app: 11 problems".to_owned(),
        format!("  - name: `Blog` is not a name: it contains `B`; {name}"),
        format!("  - services.web.prots: unknown field `prots` (did you mean `ports`? {fields})"),
        "  - services.web.ports[0].port: the text `eighty` where a whole number from 0 to 65535 is wanted".to_owned(),
        "  - services.web.ports[1].protocol: unknown word `htp` (did you mean `http`? known: http, tcp, udp)".to_owned(),
        "  - services.web.ports[2].port: `port` is missing (give it a value)".to_owned(),
        "  - services.web.env.DEBUG: `1` where a text is wanted (write it in quotes)".to_owned(),
        "  - services.api.replicas.autoscale.target_cpu: `120%` is not a share; write a whole percentage from 1% to 100%".to_owned(),
        "  - services.api.image: `image` is missing (give it a value)".to_owned(),
        "  - jobs.migrate.image: unknown word `nginx` (known: binary, reference, files, build)".to_owned(),
        "  - services.db.depends_on.cache: there is no service or job `cache` (known: api, db, web, migrate)".to_owned(),
        "  - services.db.mounts[0].volume.name: no volume `data` is declared (declare it under `volumes:`)".to_owned(),
    ];
    assert_eq!(error, lines.join("\n"));
}

#[test]
fn a_built_app_has_all_its_problems_too() {
    let error = App::build("Blog")
        .service(Service::build("Web", ImageSpec::binary("/web")).secret("No!"))
        .service(Service::build("api", ImageSpec::binary("")).port(Port::http(0)))
        .validate()
        .unwrap_err();
    let paths: Vec<&str> = error.problems().iter().map(|p| p.path.as_str()).collect();
    let expected = [
        "name",
        "services.Web.mounts",
        "services.Web",
        "services.api.image.binary",
        "services.api.ports[0].port",
    ];
    assert_eq!(paths, expected);
}

/// Each rule across fields: what is wrong, where, and in which words. The first column is the
/// app's fields beside its name, or those of a service `web` after `web:`.
const RULES: &[(&str, &str)] = &[
    ("services: {}", "services: the app has no service and no job (give it one)"),
    (
        "web: , keep_revisions: 0",
        "keep_revisions: no revision would be kept (keep at least 1: the one that runs)",
    ),
    (
        "web: , registry: 10.0.0.1",
        "registry: it is no URL of a registry (give a URL, like etcd://10.0.0.1:2379/shop)",
    ),
    (
        "web: , registry: 'etcd://me:word@10.0.0.1/shop'",
        "registry: the URL has a password, and apps are kept in the clear (leave it out, and give it to the services as a secret)",
    ),
    (
        "web: , secrets: {k: {keep: 0}}",
        "secrets.k.keep: no version would be kept (keep at least 1)",
    ),
    (
        "web: , labels: {deploykit.app: x}",
        "labels[\"deploykit.app\"]: labels that begin with `deploykit.` are the tool's own (choose another prefix)",
    ),
    (
        "web: labels: {deploykit.x: x}",
        "services.web.labels[\"deploykit.x\"]: labels that begin with `deploykit.` are the tool's own (choose another prefix)",
    ),
    (
        "web: labels: {'': x}",
        "services.web.labels[\"\"]: the label is empty or has control characters (use printable characters)",
    ),
    (
        "web: image: {binary: ''}",
        "services.web.image.binary: the path is empty (name an executable)",
    ),
    ("web: command: ['']", "services.web.command[0]: the program is empty (name a program)"),
    ("web: command: [a, \"\\0\"]", "services.web.command[1]: it has a NUL character (remove it)"),
    ("web: args: [\"a\\0\"]", "services.web.args[0]: it has a NUL character (remove it)"),
    ("web: workdir: srv", "services.web.workdir: `srv` is not absolute (begin it with `/`)"),
    ("web: user: ''", "services.web.user: the user is empty (name a user, or remove it)"),
    (
        "web: env: {'A=B': x}",
        "services.web.env[\"A=B\"]: it is no name of an environment variable (use letters, digits and `_`)",
    ),
    (
        "web: env: {'': x}",
        "services.web.env[\"\"]: it is no name of an environment variable (use letters, digits and `_`)",
    ),
    ("web: env: {A: \"\\0\"}", "services.web.env.A: the value has a NUL character (remove it)"),
    (
        "web: stop_grace: 400days",
        "services.web.stop_grace: longer than 366 days (give a shorter time)",
    ),
    (
        "web: networks: [back]",
        "services.web.networks: no network `back` is declared (declare it: `networks: {back: {}}`)",
    ),
    (
        "web: resources: {cpu_request: 2, cpu_limit: 1}",
        "services.web.resources.cpu_request: more is set aside than may be used (raise cpu_limit)",
    ),
    (
        "web: resources: {memory_request: 2Gi, memory_limit: 1Gi}",
        "services.web.resources.memory_request: more is set aside than may be used (raise memory_limit)",
    ),
    (
        "web: depends_on: {wob: healthy}",
        "services.web.depends_on.wob: there is no service or job `wob` (did you mean `web`? known: web)",
    ),
    (
        "web: connects_to: [api]",
        "services.web.connects_to: there is no service or job `api` (known: web)",
    ),
    (
        "web: connects_to: [j], jobs: {j: {image: {binary: /j}}}",
        "services.web.connects_to: `j` is a job, and jobs take no requests (name a service, or write it under depends_on)",
    ),
    (
        "web: connects_to: [web]",
        "services.web.connects_to: `web` has no port to connect to (declare one in services.web.ports)",
    ),
    (
        "web: depends_on: {j: healthy}, jobs: {j: {image: {binary: /j}}}",
        "services.web.depends_on.j: `j` is a job, and jobs are not `healthy` (write `completed` or `started`)",
    ),
    (
        "web: depends_on: {j: completed}, jobs: {j: {image: {binary: /j}, schedule: 0 3 * * *}}",
        "services.web.depends_on.j: `j` runs by its schedule, not when the app is applied (wait for a job without a schedule)",
    ),
    (
        "web: , jobs: {j: {image: {binary: /j}, depends_on: {web: completed}}}",
        "jobs.j.depends_on.web: `web` is a service, and services do not end (write `healthy` or `started`)",
    ),
    (
        "web: , jobs: {j: {image: {binary: /j}, timeout: 0s}}",
        "jobs.j.timeout: no time at all (give a time, like 1s)",
    ),
    (
        "web: , volumes: {v: {scope: per_replica}}, jobs: {j: {image: {binary: /j}, mounts: [{volume: {name: v}}]}}",
        "jobs.j.mounts[0]: volume `v` is one for each replica, and a job has none (write `volumes.v.scope: shared`)",
    ),
    (
        "web: mounts: [{config: {name: c}}]",
        "services.web.mounts[0].config.name: no config `c` is declared (declare it under `configs:`)",
    ),
    (
        "web: mounts: [{volume: {name: v}}, {volume: {name: v}}], volumes: {v: {}}",
        "services.web.mounts[1].volume: volume `v` is mounted twice, at mounts[0] too (mount it once)",
    ),
    (
        "web: mounts: [{tmpfs: {target: tmp}}]",
        "services.web.mounts[0].tmpfs.target: `tmp` is not absolute (begin it with `/`)",
    ),
    (
        "web: mounts: [{tmpfs: {target: /a/../b}}]",
        "services.web.mounts[0].tmpfs.target: `/a/../b` goes up by `..` (write the path that is meant)",
    ),
    (
        "web: mounts: [{bind: {source: etc, target: /e}}]",
        "services.web.mounts[0].bind.source: `etc` is not absolute (begin it with `/`)",
    ),
    (
        "web: mounts: [{tmpfs: {target: /t}}, {tmpfs: {target: /t/}}]",
        "services.web.mounts[1].tmpfs.target: `/t/` is the target of mounts[0] too (choose another)",
    ),
    ("web: ports: [{port: 0}]", "services.web.ports[0].port: 0 is no port (use 1 to 65535)"),
    (
        "web: ports: [{port: 1, publish: {host_port: 0}}]",
        "services.web.ports[0].publish.host_port: 0 is no port (use 1 to 65535, or `public` for one of the backend's choice)",
    ),
    (
        "web: ports: [{port: 1, publish: {route: {host: a.example}}}]",
        "services.web.ports[0].publish.route: routes are for HTTP, and the port does not speak it (write `protocol: http`)",
    ),
    (
        "web: ports: [{port: 1, protocol: http, publish: {route: {host: 'a b'}}}]",
        "services.web.ports[0].publish.route.host: `a b` is no host name (write it like www.example.org)",
    ),
    (
        "web: ports: [{port: 1, protocol: http, publish: {route: {host: a, path: x}}}]",
        "services.web.ports[0].publish.route.path: `x` is no path of a URL (begin it with `/`)",
    ),
    (
        "web: ports: [{port: 1, protocol: http, publish: {route: {host: a, tls: cert}}}]",
        "services.web.ports[0].publish.route.tls: no secret `cert` is declared (declare it under `secrets:`)",
    ),
    (
        "web: ports: [{port: 1, protocol: udp}], probes: {readiness: {check: {tcp: {}}}}",
        "services.web.probes.readiness.check.tcp: the service's first port takes datagrams, and cannot be asked (name another of its ports, or use an exec probe)",
    ),
    (
        "web: probes: {startup: {check: {exec: {command: []}}}}",
        "services.web.probes.startup.check.exec.command: there is no command (name a program)",
    ),
    (
        "web: probes: {startup: {check: {exec: {command: [a, \"\\0\"]}}}}",
        "services.web.probes.startup.check.exec.command: it has a NUL character (remove it)",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: {http: {path: healthz}}}}",
        "services.web.probes.readiness.check.http.path: `healthz` does not begin with `/` (write it like /healthz)",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: {http: {path: /a b}}}}",
        "services.web.probes.readiness.check.http.path: the path has spaces or control characters (write them as %20 and so on)",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: {http: {path: /, headers: {'X A': b}}}}}",
        "services.web.probes.readiness.check.http.headers[\"X A\"]: it is no header of HTTP (write it like X-Name: value)",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: tcp, interval: 0s}}",
        "services.web.probes.readiness.check: `tcp` needs a value",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: {tcp: {}}, interval: 0s}}",
        "services.web.probes.readiness.interval: no time at all (give a time, like 1s)",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: {tcp: {}}, timeout: 0s}}",
        "services.web.probes.readiness.timeout: no time at all (give a time, like 1s)",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: {tcp: {}}, failure_threshold: 0}}",
        "services.web.probes.readiness.failure_threshold: 0 failures would fail it (use 1 or more)",
    ),
    (
        "web: ports: [{port: 1}], probes: {readiness: {check: {tcp: {}}, success_threshold: 0}}",
        "services.web.probes.readiness.success_threshold: 0 successes would pass it (use 1 or more)",
    ),
    (
        "web: replicas: {autoscale: {min: 0, max: 2, target_cpu: 50%}}",
        "services.web.replicas.autoscale.min: 0 instances have no load to go by (use 1 or more)",
    ),
    (
        "web: replicas: {autoscale: {min: 3, max: 2, target_cpu: 50%}}",
        "services.web.replicas.autoscale.min: at least 3 is more than at most 2 (make max the larger one)",
    ),
    (
        "web: update: {progress_deadline: 0s}",
        "services.web.update.progress_deadline: no time at all (give a time, like 1s)",
    ),
    (
        "web: update: {progress_deadline: 5s, monitor: 5s}",
        "services.web.update.progress_deadline: it passes before an instance has been ready for the monitor time (make it longer than monitor)",
    ),
    (
        "web: update: {strategy: {rolling: {surge: 0}}}",
        "services.web.update.strategy.rolling: with surge 0 and unavailable 0, no instance could be replaced (make one of them 1 or more)",
    ),
    (
        "web: update: {strategy: {rolling: {unavailable: 2}}}",
        "services.web.update.strategy.rolling.unavailable: 2 is more than the 1 there are (use at most replicas)",
    ),
    (
        "web: update: {strategy: {canary: []}}",
        "services.web.update.strategy.canary: there is no step (give steps like [{share: 25%, hold: 1m}], or use rolling)",
    ),
    (
        "web: replicas: 4, update: {strategy: {canary: [{share: 50%}, {share: 25%}]}}",
        "services.web.update.strategy.canary[1].share: 25% is no more than the 50% before (let the shares grow)",
    ),
    (
        "web: replicas: 4, update: {strategy: {canary: [{share: 30%}]}}",
        "services.web.update.strategy.canary[0].share: 30% of 4 instances is no whole number (use one of: 25%, 50%, 75%, 100%)",
    ),
    (
        "web: replicas: global, update: {strategy: {canary: [{share: 30%}]}}",
        "services.web.update.strategy.canary: canary steps are shares of a fixed number, and replicas are global (use a number of replicas, or rolling)",
    ),
    (
        "web: mounts: [{volume: {name: v}}], volumes: {v: {scope: per_replica}}",
        "services.web.update.strategy: volume `v` is one for each replica: a new instance cannot start while the old one has it (use `strategy: {rolling: {surge: 0, unavailable: 1}}` or `recreate`)",
    ),
    (
        "web: mounts: [{volume: {name: v}}], update: {strategy: blue_green}, volumes: {v: {scope: per_replica}}",
        "services.web.update.strategy: volume `v` is one for each replica: a new instance cannot start while the old one has it (use `strategy: {rolling: {surge: 0, unavailable: 1}}` or `recreate`)",
    ),
    (
        "web: endpoint_mode: dnsrr",
        "services.web.endpoint_mode: it has no port that its name could lead to (declare one under ports, or remove it)",
    ),
    (
        "web: endpoint_mode: dnsrr, ports: [{port: 80}, {name: a, port: 81, publish: public}]",
        "services.web.ports[1].publish: its name leads to each instance, and a published port to any of them (publish it by another service, or remove `endpoint_mode: dnsrr`)",
    ),
];

#[test]
fn every_rule_across_fields() {
    for (app, expected) in RULES {
        let yaml = match app.strip_prefix("web: ") {
            // What follows the service's fields at the app's level begins with its map's name.
            Some(rest) => {
                let maps = [
                    ", registry:",
                    ", keep_revisions:",
                    ", secrets:",
                    ", labels:",
                    ", jobs:",
                    ", volumes:",
                ];
                let split =
                    maps.iter().filter_map(|map| rest.find(map)).min().unwrap_or(rest.len());
                let (web, top) = rest.split_at(split);
                let image = if web.starts_with("image:") { "" } else { "image: {binary: /web}, " };
                format!("{{name: a, services: {{web: {{{image}{web}}}}}{top}}}")
            }
            None => format!("{{name: a, {app}}}"),
        };
        assert_eq!(problems(&yaml), [*expected], "{yaml}");
    }
}

#[test]
fn a_config_too_large() {
    let yaml = format!(
        "{{name: a, services: {{web: {{image: {{binary: /w}}}}}}, configs: {{c: {{content: {}}}}}}}",
        "x".repeat(512_001)
    );
    assert_eq!(
        problems(&yaml),
        [
            "configs.c.content: the content has 512001 bytes, more than 512000 (put it into an image \
          or a volume)"
        ]
    );
}

#[test]
fn a_path_that_is_no_text() {
    use std::os::unix::ffi::OsStringExt;
    let path = std::ffi::OsString::from_vec(b"/\xff".to_vec());
    let web = Service::build("web", ImageSpec::binary("/web")).workdir(path);
    let error = App::build("blog").service(web).validate().unwrap_err();
    assert_eq!(
        error.problems()[0].to_string(),
        "services.web.workdir: the path is no UTF-8, or has a NUL character (rename the file)"
    );
}

#[test]
fn an_image_made_of_files() {
    let of_files = |copy: &str| {
        problems(&format!(
            "{{name: blog, services: {{web: {{image: {{files: {{copies: [{{{copy}}}]}}}}}}}}}}"
        ))
    };
    assert_eq!(
        of_files("from: web, to: /bin/web, mode: \"0999\""),
        ["services.web.image.files.copies[0].mode: `0999` is not a file's mode; write its octal \
          digits in quotes, like \"0644\""]
    );
    assert_eq!(
        of_files("from: web, to: bin/web, mode: \"0644\""),
        [
            "services.web.image.files.copies[0].to: `bin/web` is not absolute (begin it with `/`)",
            "services.web.image.files.program: nothing says what is run (name it, or an entrypoint)",
        ]
    );
}
