//! Compose projects: found, shown, checked and run.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Ctl, Ended};

impl Ctl {
    /// Runs it in a folder beside the state folder, with variables.
    fn run_in(&self, folder: &str, variables: &[(&str, &str)], args: &[&str]) -> Ended {
        let mut command = self.command(args);
        command.current_dir(self.path(folder)).envs(variables.iter().copied());
        let output = command.stdin(Stdio::null()).output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn ok(ended: Ended) -> String {
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    ended.out
}

#[test]
fn a_project_is_found_as_compose_finds_it() {
    let ctl = Ctl::new();
    std::fs::create_dir_all(ctl.path("My Shop/deep")).unwrap();
    ctl.file("My Shop/compose.yaml", "services: {web: {image: 'nginx:${TAG:-1}'}}");
    ctl.file("My Shop/compose.override.yaml", "services: {web: {command: [a, $$b]}}");
    ctl.file("My Shop/.env", "TAG=from-env\n");
    ctl.file("My Shop/other.env", "TAG=other\n");
    let text = "name: other\nservices: {api: {image: api}, dbg: {image: dbg, profiles: [debug]}}";
    ctl.file("My Shop/other.yaml", text);
    let found = ok(ctl.run_in("My Shop/deep", &[], &["config"]));
    assert!(found.starts_with("name: myshop\n"), "{found}");
    assert!(found.contains("image: \"nginx:from-env\"\n"), "{found}");
    assert!(found.contains("- \"$$b\"\n"), "what is printed loads to the same: {found}");
    let args = ["config", "--env-file", "../other.env", "-p", "two"];
    let found = ok(ctl.run_in("My Shop/deep", &[], &args));
    assert!(found.starts_with("name: two\n") && found.contains("nginx:other"), "{found}");
    let variables = [("COMPOSE_FILE", "other.yaml"), ("COMPOSE_PROFILES", "debug")];
    let found = ok(ctl.run_in("My Shop", &variables, &["--json", "config"]));
    let found: serde_json::Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found["name"], "other");
    assert_eq!(found["services"].as_object().unwrap().len(), 2);
    let args = ["config", "-f", "compose.yaml", "-f", "other.yaml", "--profile", "debug"];
    let both = ok(ctl.run_in("My Shop", &[], &args));
    for name in ["web:", "api:", "dbg:"] {
        assert!(both.contains(name), "{both}");
    }
    let ended = ctl.run_in("", &[], &["config"]);
    assert!(ended.err.contains("there is no compose.yaml in "), "{}", ended.err);
    assert_eq!(ended.code, 2);
}

#[test]
fn a_file_of_the_model_is_told_from_one_of_compose() {
    let ctl = Ctl::new();
    let model = "{name: shop, services: {web: {image: {reference: nginx}, args: ['$HOME']}}}";
    let model = ctl.file("app.yaml", model);
    let compose = ctl.done(&["config", "-f", &model]);
    assert!(compose.contains("\"$$HOME\""), "{compose}");
    let compose = ctl.file("shop.yaml", &compose);
    let app = |file| ctl.json(&["config", "-f", file]);
    assert_eq!(app(&model)["services"]["web"]["args"][0], "$HOME");
    assert_eq!(app(&compose)["services"]["web"]["command"][0], "$HOME");
}

#[test]
fn what_the_file_and_the_backend_object_to_is_told_at_once() {
    let ctl = Ctl::new();
    let text = "name: shop
services:
  web:
    image: nginx
    init: true
    ports: ['80:80']
";
    let file = ctl.file("compose.yaml", text);
    let ended = ctl.run(&["validate", "-f", &file]);
    let shown = format!(
        "deployctl: load the Compose project: 1 problem\n\n\
         error: services.web.init: `init` would be left out: it is a matter of the container engine, \
         which the model does not have (allow `services.*.init` to leave it out)\n  --> {file}:5:5\n   |\n \
         5 |     init: true\n   |     ^^^^\n  \
         - services.web.image.reference: the backend local does not support `images` (name an \
         executable by its path, or use another backend)\n"
    );
    assert_eq!(ended.err, shown);
    assert_eq!((ended.code, ended.out.as_str()), (2, ""));
    let ended = ctl.run(&["--json", "validate", "-f", &file]);
    let error: serde_json::Value = serde_json::from_str(&ended.err).unwrap();
    let paths = error["problems"].as_array().unwrap().iter().map(|p| p["path"].as_str().unwrap());
    let expected = ["services.web.init", "services.web.image.reference"];
    assert_eq!(paths.collect::<Vec<_>>(), expected);
    let ended = ctl.run(&["--allow", "services.*.init", "up", "-f", &file]);
    assert!(!ended.err.contains("init"), "{}", ended.err);
    assert_eq!(ended.code, 2);
    assert!(!ctl.path("state/state.db").exists() || ctl.done(&["status"]).is_empty());
}

#[test]
fn a_project_of_five_services_goes_up_as_it_is() {
    let ctl = Ctl::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/compose/compose.yaml");
    let program = ctl.command(&[]).get_program().to_owned();
    let program = Path::new(&program).with_file_name("blog");
    assert!(program.exists(), "build it first: cargo build --example blog");
    let file = example.to_str().unwrap();
    let up = |key: &str, more: &[&str]| {
        let variables = [("BLOG_PROGRAM", program.to_str().unwrap()), ("BLOG_SESSION_KEY", key)];
        // Named so that it is removed when the test fails.
        let args = [&["up", "-f", file, "-p", "shop"], more].concat();
        ok(ctl.run_in("", &variables, &args))
    };
    let said = up("one key of 32 characters or more", &[]);
    assert!(said.contains("+ job migrate: new") && said.contains("at revision 1\n"), "{said}");
    let status = ctl.json(&["status", "shop"]);
    let instances = status["observation"]["instances"].as_array().unwrap();
    assert_eq!(instances.iter().filter(|i| i["ready"] == true).count(), 6);

    let address = said.lines().find_map(|line| line.strip_prefix("gateway: ")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    assert!(page.contains("A blog from a Compose file"), "{page}");

    let again = up("one key of 32 characters or more", &[]);
    assert!(again.contains("nothing to do"), "{again}");
    let rotated = up("another one, of 32 characters too", &["--profile", "preview"]);
    assert!(rotated.contains("+ service preview: new"), "{rotated}");
    assert!(rotated.contains("service users: secret session-key"), "{rotated}");
    assert!(!rotated.contains("service store"), "{rotated}");
    ctl.done(&["down", "shop", "--volumes"]);
}

/// Runs `config` on a file in 200 MiB beside what is mapped of the program itself (60 MiB of one
/// that is built for tests with all features); what must be refused, and how.
fn hostile(ctl: &Ctl, name: &str, message: &str) {
    let config = ctl.command(&["config", "-f", name]);
    let arguments = config.get_args().map(|a| a.to_owned());
    let started = std::time::Instant::now();
    let output = Command::new("sh")
        .args(["-c", "ulimit -v 270336; exec \"$0\" \"$@\""])
        .arg(config.get_program())
        .args(arguments)
        .env("TOKIO_WORKER_THREADS", "1")
        .current_dir(ctl.path(""))
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains(message), "{name}: {error:.2000}");
    assert_eq!(output.status.code(), Some(2), "{name}: {error:.2000}");
    assert!(error.len() < 100_000, "{name}: {} bytes of error", error.len());
    println!("{name}: {:?}", started.elapsed());
}

#[test]
fn hostile_files_end_in_errors_within_200_mib() {
    let ctl = Ctl::new();
    let mut bomb = String::from("name: a\nx-0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..40 {
        bomb += &format!("x-{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10));
    }
    ctl.file("compose-bomb.yaml", &bomb);
    hostile(&ctl, "compose-bomb.yaml", "more than");
    let mut merged = String::from("name: a\nx-0: &a0 {k: v}\n");
    for level in 1..40 {
        let aliases: Vec<String> = (0..10).map(|n| format!("k{n}: *a{}", level - 1)).collect();
        merged += &format!("x-{level}: &a{level} {{{}}}\n", aliases.join(", "));
    }
    ctl.file("compose-maps.yaml", &merged);
    hostile(&ctl, "compose-maps.yaml", "more than");
    let nested = format!("name: a\nx-a: {}{}", "[".repeat(1000), "]".repeat(1000));
    ctl.file("compose-nested.yaml", &nested);
    hostile(&ctl, "compose-nested.yaml", "recursion limit");
    let deep: String = (0..1000).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
    ctl.file("compose-deep.yaml", &deep);
    hostile(&ctl, "compose-deep.yaml", "deep");
    let long = std::fs::File::create(ctl.path("compose-long.yaml")).unwrap();
    long.set_len(100 << 20).unwrap();
    hostile(&ctl, "compose-long.yaml", "at most");
    let mut text = String::from("name: a\nservices:\n");
    while text.len() < 100 << 20 {
        text += "  - {image: 'nginx:1.27', command: [serve, --port, '80']}\n";
    }
    ctl.file("compose-much.yaml", &text);
    hostile(&ctl, "compose-much.yaml", "at most");
    drop(text);

    let keys: String = (0..90_000).map(|n| format!("  key{n}: 1\n")).collect();
    ctl.file("compose-keys.yaml", &format!("name: a\nservices: {{}}\nnetworks:\n{keys}"));
    hostile(&ctl, "compose-keys.yaml", "more problems");
    let services: String =
        (0..1000).map(|n| format!("  s{n}: {{image: i, ports: ['1-65535']}}\n")).collect();
    ctl.file("compose-ports.yaml", &format!("name: a\nservices:\n{services}"));
    hostile(&ctl, "compose-ports.yaml", "more than");
    let mut env = String::from("V0=xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n");
    for n in 1..40 {
        env += &format!("V{n}={}\n", format!("$V{}", n - 1).repeat(10));
    }
    ctl.file(".env", &env);
    ctl.file("compose-env.yaml", "name: a\nservices: {a: {image: $V39}}");
    hostile(&ctl, "compose-env.yaml", "more than");
    std::fs::remove_file(ctl.path(".env")).unwrap();
    let hosts: String = (0..60_000).map(|n| format!("      - h{n}=1.1.1.1\n")).collect();
    let hosts =
        format!("name: a\nservices:\n  a:\n    image: i\n    nope: 1\n    extra_hosts:\n{hosts}");
    ctl.file("compose-hosts.yaml", &hosts);
    ctl.file("compose-hosts2.yaml", &hosts);
    hostile(&ctl, "compose-hosts.yaml", "`nope` is not a key");
    let documents = "---\nx-a: [1, 2, 3]\n".repeat(30_000);
    ctl.file("compose-documents.yaml", &format!("name: a\nservices: {{}}\n{documents}"));
    hostile(&ctl, "compose-documents.yaml", "more than");
    let includes = "include: [n0.yaml, n0.yaml]\nname: a\nservices: {a: {imagee: i}}";
    ctl.file("compose-include.yaml", includes);
    for n in 0..40 {
        let next = n + 1;
        ctl.file(&format!("n{n}.yaml"), &format!("include: [n{next}.yaml, n{next}.yaml]\n"));
    }
    ctl.file("n40.yaml", "services: {b: {image: i}}");
    hostile(&ctl, "compose-include.yaml", "more than");
}
