//! The project of `examples/compose`, as it is, on backends whose images a Docker engine builds.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use crate::{Ctl, Ended};

/// What README.md says of the folder that the image is built from.
const ROOT: &str = "mkdir root && cp \"$0\" root/ && \
    cp --parents --dereference $(ldd \"$0\" | grep -o '/[^ ]*') root/";

fn ok(ended: Ended) -> String {
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    ended.out
}

fn page(said: &str) -> String {
    let address = said.lines().find_map(|line| line.strip_prefix("gateway: ")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).unwrap();
    page
}

/// The URL of the backend: that of the engine, where no other is asked for; nothing where there is
/// none to test with.
fn url() -> Option<String> {
    let asked = std::env::var("DEPLOYKIT_TEST_COMPOSE_ON");
    let engine = || std::env::var("DEPLOYKIT_TEST_DOCKER");
    match asked.or_else(|_| engine()) {
        Ok(url) => Some(url.replacen("unix://", "docker://", 1)),
        Err(_) => {
            assert!(std::env::var_os("CI").is_none(), "DEPLOYKIT_TEST_DOCKER is not set");
            eprintln!("skipped: DEPLOYKIT_TEST_DOCKER is not set (eval \"$(testbed/up docker)\")");
            None
        }
    }
}

#[test]
fn a_project_of_five_services_is_built_and_goes_up_as_it_is() {
    let Some(url) = url() else { return };
    let ctl = Ctl::new();
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/compose");
    for name in ["compose.yaml", "Dockerfile"] {
        std::fs::copy(example.join(name), ctl.path(name)).unwrap();
    }
    let program = ctl.command(&[]).get_program().to_owned();
    let program = Path::new(&program).with_file_name("blog");
    assert!(program.exists(), "build it first: cargo build --example blog");
    let mut copy = Command::new("sh");
    let copied = copy.args(["-c", ROOT]).arg(&program).current_dir(ctl.path("")).status().unwrap();
    assert!(copied.success());

    let app = format!("shop-{:x}", std::process::id());
    let file = ctl.path("compose.yaml").display().to_string();
    let run = |args: &[&str], key: &str| {
        let args = [&["--on", &url], args].concat();
        let output = ctl.command(&args).env("BLOG_SESSION_KEY", key).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: text(output.stdout),
            err: text(output.stderr),
        }
    };
    let up = |key: &str| run(&["up", "-f", &file, "-p", &app], key);
    let first = up("one key of 32 characters or more");
    // It is gone from the engine before anything is asserted.
    let served = (first.code == 0).then(|| page(&first.out));
    let again = up("one key of 32 characters or more");
    std::fs::write(ctl.path("root/changed"), "another image").unwrap();
    let changed = up("one key of 32 characters or more");
    let down = run(&["down", &app, "--volumes"], "");

    let first = ok(first);
    assert!(first.contains("+ job migrate: new") && first.contains("at revision 1\n"), "{first}");
    let served = served.unwrap();
    assert!(served.contains("A blog from a Compose file"), "{served}");
    let again = ok(again);
    assert!(again.contains("nothing to do"), "what has not changed is the same image: {again}");
    let changed = ok(changed);
    assert!(changed.contains("service posts: image"), "{changed}");
    ok(down);
}
