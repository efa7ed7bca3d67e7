//! Projects: what is shown of a wrong one, and what becomes of a right one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::Path;

use deploykit_compose::{ComposeFile, LoadOptions, Project, keys_table, load, to_app};
use deploykit_core::model::{
    BuildSecret, Condition, ImageBuild, ImageSpec, Mount, Publish, RestartPolicy,
};

fn options(texts: &[&str]) -> LoadOptions {
    let mut options = LoadOptions::new([], "/srv/shop");
    options.normalize = false;
    for (index, text) in texts.iter().enumerate() {
        let path =
            if index == 0 { "compose.yaml".into() } else { format!("over{index}.yaml").into() };
        options.files.push(ComposeFile { path, text: Some((*text).to_owned()) });
    }
    options
}

fn project(text: &str) -> Project {
    load(&options(&[text])).unwrap()
}

fn error(text: &str) -> String {
    load(&options(&[text])).unwrap_err().to_string()
}

#[test]
fn everything_wrong_is_shown_at_once_where_it_stands() {
    let text = "name: shop
services:
  web:
    imagee: nginx
    ports: [\"99999:80\"]
    stop_grace_period: soon
  db:
    image: ${DB_IMAGE:?say which}
    volumes: ['dta:/d']
volumes: {data: }
";
    let shown = error(text);
    assert_eq!(
        shown,
        "error: services.web: `imagee` is not a key here (do you mean `image`?)
  --> compose.yaml:4:5
   |
 4 |     imagee: nginx
   |     ^^^^^^

error: services.web.ports: `99999:80` is not a port: `99999` is not a port number; write it like 80, 8080:80, 127.0.0.1:8080:80/tcp
  --> compose.yaml:5:13
   |
 5 |     ports: [\"99999:80\"]
   |             ^^^^^^^^^^

error: services.web.stop_grace_period: `soon` is not a duration; write it like 500ms, 10s or 1m30s
  --> compose.yaml:6:24
   |
 6 |     stop_grace_period: soon
   |                        ^^^^

error: services.db.image: the variable DB_IMAGE is required: say which
  --> compose.yaml:8:12
   |
 8 |     image: ${DB_IMAGE:?say which}
   |            ^^^^^^^^^^^^^^^^^^^^^^

error: services.db: `dta` is not among the volumes (do you mean `data`?)
  --> compose.yaml:9:15
   |
 9 |     volumes: ['dta:/d']
   |               ^^^^^^^^
"
    );
}

#[test]
fn names_that_are_not_declared_have_the_nearest_one() {
    let shown =
        error("name: a\nservices: {web: {image: x, volumes: ['dta:/d']}}\nvolumes: {data: }");
    assert!(shown.contains("`dta` is not among the volumes (do you mean `data`?)"), "{shown}");
    let shown = error(
        "name: a\nservices: {a: {image: x, depends_on: [b]}, b: {image: x, depends_on: [a]}}",
    );
    assert!(shown.contains("the services depend on each other: a -> b -> a"), "{shown}");
}

#[test]
fn what_is_written_loads_to_the_same() {
    let text = "name: shop
services:
  web: {image: nginx, command: sh -c 'a b', environment: [A=1, B=], ports: [80-81:80-81], healthcheck: {test: x, interval: 90s}}
";
    let mut wanted = options(&[text]);
    wanted.normalize = true;
    let first = load(&wanted).unwrap();
    let again = load(&LoadOptions { normalize: true, ..options(&[&first.to_yaml()]) }).unwrap();
    assert_eq!(again.root(), first.root(), "{}", first.to_yaml());
}

#[test]
fn each_file_is_looked_at_with_those_before_it() {
    let both = |base: &str, over: &str| {
        let base =
            format!("name: a\nservices: {{w: {{image: x, {base}}}}}\nnetworks: {{n: !reset {{}}}}");
        let over = format!("services: {{w: {{{over}}}}}\nnetworks: {{n: }}");
        load(&options(&[&base, &over]))
    };
    let shown = both("profiles: 1.5", "profiles: [p]").unwrap_err().to_string();
    assert!(shown.contains("compose.yaml:2:36"), "{shown}");
    let project =
        both("gpus: all, scale: 2", "gpus: [{count: 1}], deploy: {mode: replicated}").unwrap();
    let web = project.service("w").unwrap();
    assert_eq!(web.get("gpus").unwrap().items().len(), 2);
    assert_eq!(web.get("deploy").unwrap().get("replicas").unwrap().as_int(), Some(2));
    assert!(project.root().get("networks").unwrap().get("n").is_some());
    let many = "---\nx-a: [1, 2, 3, 4, 5, 6, 7, 8, 9]\n".repeat(10_000);
    let shown = both("scale: 1", &format!("scale: 1}}}}\n{many}---\nservices: {{w: {{"));
    assert!(shown.unwrap_err().to_string().contains("more than"));
}

const SHOP: &str = "name: shop
services:
  web:
    image: nginx:1.27
    command: [\"serve\"]
    environment: {A: 1, UNSET: }
    ports: [\"8080:80\", {target: 9090, app_protocol: http}]
    restart: unless-stopped
    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64m}}, update_config: {order: start-first}}
    depends_on: {migrate: {condition: service_completed_successfully}, db: {condition: service_healthy}}
    secrets: [key]
  migrate:
    image: migrate
    restart: on-failure:3
  db:
    image: postgres
    healthcheck: {test: [CMD, pg_isready], interval: 5s, start_period: 20s}
    volumes: ['data:/var/lib/postgresql/data']
  debug: {image: debug, profiles: [debug]}
volumes: {data: }
secrets: {key: {environment: KEY}}
";

#[test]
fn a_project_becomes_an_app() {
    let converted = to_app(&project(SHOP), &BTreeSet::new()).unwrap();
    let app = converted.app;
    let web = &app.services["web"];
    assert_eq!(web.args, ["serve"]);
    assert_eq!(web.env.len(), 1);
    assert_eq!(web.ports[0].publish, Publish::HostPort(80 + 8000));
    assert_eq!(web.ports[1].name.as_ref().unwrap(), &"p9090");
    assert_eq!(web.restart, RestartPolicy::Always);
    assert_eq!(web.depends_on["migrate"], Condition::Completed);
    assert_eq!(web.resources.cpu_limit.unwrap().as_millis(), 500);
    assert!(matches!(&web.mounts[0], Mount::Secret(secret) if secret.target.is_none()));
    assert_eq!(app.jobs["migrate"].retries, 3);
    let probes = &app.services["db"].probes;
    assert_eq!(probes.startup.as_ref().unwrap().failure_threshold, 7);
    assert_eq!(app.services["db"].restart, RestartPolicy::Never);
    assert!(!app.services.contains_key("debug"));
    assert_eq!(converted.secrets.len(), 1);
}

#[test]
fn nothing_is_dropped_silently() {
    let text = "name: a\nservices: {web: {image: x, privileged: true, init: true, networks: {n: {aliases: [b]}}}}\nnetworks: {n: }";
    let project = project(text);
    let shown = to_app(&project, &BTreeSet::new()).unwrap_err();
    assert_eq!(shown.diagnostics().len(), 3, "{shown}");
    let allowed = ["services.*.init", "services.*.networks.*.aliases", "services.*.privileged"];
    let allowed = allowed.map(str::to_owned).into();
    let shown = to_app(&project, &allowed).unwrap_err();
    assert_eq!(shown.diagnostics().len(), 1, "{shown}");
    assert_eq!(shown.diagnostics()[0].path, "services.web.privileged");
}

#[test]
fn the_table_of_keys_is_up_to_date() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/compose-keys.md");
    if std::env::var_os("UPDATE_COMPOSE_KEYS").is_some() {
        std::fs::write(&file, keys_table()).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap();
    assert!(
        kept == keys_table(),
        "run this test with UPDATE_COMPOSE_KEYS=1 and look at the change"
    );
}

#[test]
fn hostile_files_end_in_errors() {
    let mut bomb = String::from("name: a\nx-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        bomb += &format!("x-{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10));
    }
    assert!(error(&bomb).contains("more than"));
    assert!(!error(&format!("x-a: {}{}", "[".repeat(1000), "]".repeat(1000))).is_empty());
    let deep: String = (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    assert!(!error(&deep).is_empty());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("compose.yaml");
    std::fs::File::create(&file).unwrap().set_len(100 << 20).unwrap();
    let shown = load(&LoadOptions::new([file], folder.path())).unwrap_err().to_string();
    assert!(shown.contains("bytes"), "{shown}");
}

#[test]
fn what_is_built_is_mapped() {
    let text = "name: shop
services:
  web:
    image: shop/web
    build: {context: web, dockerfile: docker/Dockerfile, target: release, args: {A: 1, HOST: , NOT: }, secrets: [token], no_cache: true}
  db: {build: ./db, secrets: [key]}
secrets: {token: {file: ./token}, key: {environment: KEY}}
";
    let mut given = options(&[text]);
    given.environment.insert("HOST".into(), "here".into());
    let converted = to_app(&load(&given).unwrap(), &BTreeSet::new()).unwrap();
    let ImageSpec::Build(web) = &converted.app.services["web"].image else { panic!("no build") };
    let mut wanted = ImageBuild::new("/srv/shop/web");
    wanted.dockerfile = Some("docker/Dockerfile".into());
    wanted.target = Some("release".into());
    wanted.args = [("A".into(), "1".into()), ("HOST".into(), "here".into())].into();
    wanted.no_cache = true;
    wanted.secrets = [("token".into(), BuildSecret::File("/srv/shop/token".into()))].into();
    assert_eq!(**web, wanted);
    assert_eq!(
        converted.app.services["db"].image,
        ImageSpec::build(ImageBuild::new("/srv/shop/db"))
    );
    let names: Vec<&str> = converted.app.secrets.keys().map(AsRef::as_ref).collect();
    assert_eq!(names, ["key"], "what only builds use is none of the app's");

    let refused = |build: &str| {
        let text = format!("name: a\nservices: {{web: {{build: {build}}}}}");
        to_app(&project(&text), &BTreeSet::new()).unwrap_err().to_string()
    };
    assert!(refused("{context: ., ssh: [default]}").contains("`ssh` is not supported"));
    assert!(refused("{context: ., cache_to: [x]}").contains("services.*.build.cache_to"));
    assert!(refused("https://git.example/x.git").contains("clone it"));
    let external = "name: a\nservices: {web: {build: {context: ., secrets: [s]}}}\nsecrets: {s: {external: true}}";
    let shown = to_app(&project(external), &BTreeSet::new()).unwrap_err().to_string();
    assert!(shown.contains("from a file or from the environment"), "{shown}");
}
