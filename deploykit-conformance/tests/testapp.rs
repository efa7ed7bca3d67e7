//! The test application as a process.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use deploykit_core::memory::dial;

fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_testapp"));
    command.arg("testapp").stdout(Stdio::piped()).env_clear().env("HOST", "127.0.0.1");
    command
}

fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// Ends it when the test ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

/// Starts it, and waits until it has said what it says first.
fn start(command: &mut Command) -> Running {
    let mut running = Running(command.spawn().unwrap());
    let mut line = String::new();
    BufReader::new(running.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("testapp"), "{line}");
    running
}

fn connect(port: u16) -> TcpStream {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match TcpStream::connect(("127.0.0.1", port)) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn ask(port: u16, request: &str) -> String {
    let mut stream = connect(port);
    write!(stream, "{request}").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn get(port: u16, path: &str) -> String {
    ask(port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

#[test]
fn it_answers_with_its_facts() {
    let (port, tcp) = (free_port(), free_port());
    let folder = tempfile::tempdir().unwrap();
    let mut command = command();
    command.args(["it's", "$HOME"]).env("PORT", port.to_string()).env("PORT_TCP", tcp.to_string());
    command.env("DEPLOYKIT_INSTANCE", "web-1").env(dial::VERSION, "7");
    command.env("VOLUMES_DIR", folder.path());
    let _running = start(&mut command);
    assert!(get(port, "/").ends_with(r#"{"instance":"web-1","version":"7"}"#));
    assert!(get(port, "/args").ends_with(r#"["testapp","it's","$HOME"]"#));
    assert!(get(port, "/healthz").starts_with("HTTP/1.1 200"));
    assert!(get(port, "/nothing").starts_with("HTTP/1.1 404"));
    assert!(get(port, "/count").ends_with("\r\n\r\n4"), "probes do not count");
    std::fs::write(folder.path().join("note"), "kept").unwrap();
    assert!(get(port, "/file?path=$VOLUMES_DIR/note").ends_with("\r\n\r\nkept"));
    let mut echo = connect(tcp);
    echo.write_all(b"hello").unwrap();
    let mut back = [0; 5];
    echo.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"hello");
}

#[test]
fn it_obeys_its_dials() {
    let port = free_port();
    let mut ill = command();
    ill.env("PORT", port.to_string()).env(dial::UNHEALTHY_AFTER_MS, "0");
    let _ill = start(&mut ill);
    assert!(get(port, "/healthz").starts_with("HTTP/1.1 503"));

    let mut crashing = command();
    crashing.env(dial::EXIT_AFTER_MS, "20").env(dial::EXIT_CODE, "7").env(dial::PRINT, "why");
    let output = crashing.output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert!(String::from_utf8(output.stdout).unwrap().ends_with("\nwhy\n"));

    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let run = || {
        let mut job = command();
        job.env("VOLUMES_DIR", folder.path()).env(dial::RUNS, "data").env(dial::FAIL_RUNS, "2");
        job.env(dial::EXIT_AFTER_MS, "0").output().unwrap().status.code()
    };
    assert_eq!([run(), run(), run()], [Some(1), Some(1), Some(0)]);
}

#[test]
fn it_ends_by_its_signal_or_not() {
    let mut gentle = start(command().env(dial::DRAIN_MS, "100"));
    gentle.signal(rustix::process::Signal::USR1);
    assert_eq!(gentle.0.wait().unwrap().code(), Some(0));

    let mut stubborn = start(command().env(dial::IGNORE_STOP, "1"));
    stubborn.signal(rustix::process::Signal::TERM);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(stubborn.0.try_wait().unwrap(), None, "it goes on");
    stubborn.0.kill().unwrap();
    assert_eq!(stubborn.0.wait().unwrap().signal(), Some(9));
}

#[test]
fn it_is_a_command() {
    let run = |words: &[&str]| command().arg("exec").args(words).env("X", "a b").output().unwrap();
    assert!(String::from_utf8(run(&["env"]).stdout).unwrap().contains("X=a b\n"));
    assert_eq!(run(&["echo", "a  b", "*"]).stdout, b"a  b *\n");
    assert_eq!(run(&["false"]).status.code(), Some(1));
    assert_eq!(run(&["nonsense"]).status.code(), Some(127));
}
