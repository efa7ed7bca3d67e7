//! The example `deployctl`, run as people run it: what it prints, what it does, how it ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(all(feature = "compose", feature = "local", feature = "oci"))]

mod compose;
#[cfg(feature = "docker")]
mod compose_built;
mod files;
mod images;
mod life;
mod plans;
mod secrets;
mod terminal;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// `deployctl` on a local backend of its own.
struct Ctl {
    folder: TempDir,
}

/// How a run of it ended.
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl Ctl {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A path beside the state folder.
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file beside the state folder.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn command(&self, args: &[&str]) -> Command {
        // target/<profile>/deps/<this test>: examples are built beside.
        let built = std::env::current_exe().unwrap();
        let program = built.parent().and_then(Path::parent).unwrap().join("examples/deployctl");
        assert!(program.exists(), "build it first: cargo build --example deployctl");
        let mut command = Command::new(program);
        if !args.contains(&"--on") {
            command.args(["--on", &format!("local://{}", self.path("state").display())]);
        }
        command
            .args(args)
            .env("XDG_CONFIG_HOME", self.path("config"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.run_with(args, "")
    }

    /// Runs it with a text on standard input.
    fn run_with(&self, args: &[&str], input: &str) -> Ended {
        let mut child = self.command(args).spawn().unwrap();
        // One that has ended before it has read everything is told by its exit code.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ended {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs what must end well and returns what it printed.
    fn done(&self, args: &[&str]) -> String {
        let Ended { code, out, err } = self.run(args);
        assert_eq!(code, 0, "{args:?}: {out}{err}");
        out
    }

    /// Runs what must be refused with this code and this message, nothing else being printed.
    fn refused(&self, args: &[&str], code: i32, message: &str) {
        assert_eq!(self.fails(args, code, message), "", "{args:?}");
    }

    /// Runs what must end with this code and this message, and returns what it printed before.
    fn fails(&self, args: &[&str], code: i32, message: &str) -> String {
        let ended = self.run(args);
        assert_eq!(ended.err, format!("deployctl: {message}\n"), "{args:?}: {}", ended.out);
        assert_eq!(ended.code, code, "{args:?}");
        ended.out
    }

    /// A line of JSON that must be printed.
    fn json(&self, args: &[&str]) -> serde_json::Value {
        let out = self.done(&[&["--json"], args].concat());
        serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}"))
    }
}

impl Drop for Ctl {
    /// A test that has failed leaves processes behind otherwise.
    fn drop(&mut self) {
        if self.path("state").exists() {
            for app in ["shop", "other"] {
                self.run(&["down", app, "--volumes"]);
            }
        }
    }
}

/// An app of one service that needs nothing.
const SHOP: &str = "
name: shop
services:
  web:
    image: {binary: /bin/sh}
    args: [-c, 'echo \"hello from $VERSION\"; exec sleep 1000']
    env: {VERSION: one}
    replicas: 2
    stop_grace: 1s
jobs:
  seed:
    image: {binary: /bin/true}
";
