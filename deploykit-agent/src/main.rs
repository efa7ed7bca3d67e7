//! The agent as a program: the only file of a container.

mod run;

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use deploykit_agent::control::{program, socket};
use deploykit_agent::server::{Agent, Server};
use deploykit_core::Result;
use rustix::process::{Resource, Rlimit, WaitOptions, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use zeroize::Zeroizing;

const USAGE: &str = "\
usage: deploykit-agent serve [--state FOLDER]     keeps, serves and asks what its clients say
       deploykit-agent connect [--state FOLDER]   joins standard input and output to that agent
       deploykit-agent run PROBES PORT,… -- PROGRAM [ARGUMENT…]
                                                  runs a program, and ends it when its liveness
                                                  probe fails
       deploykit-agent --version

FOLDER is /state where it is not given. SIGTERM ends the agent; requests in flight have 8 s.";

const FOLDER: &str = "/state";
/// How long what is in flight may take to end: engines kill after 10 s.
const GRACE: Duration = Duration::from_secs(8);
/// How long an agent may take to listen that has just been started.
const START: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let ended = match words[..] {
        ["--version"] => writeln!(io::stdout(), "{}", program()).map_err(|e| e.to_string()),
        ["--help"] => writeln!(io::stdout(), "{USAGE}").map_err(|e| e.to_string()),
        ["serve"] => serve(Path::new(FOLDER)),
        ["serve", "--state", folder] => serve(Path::new(folder)),
        ["connect"] => connect(&socket(Path::new(FOLDER))),
        ["connect", "--state", folder] => connect(&socket(Path::new(folder))),
        ["run", probes, ports, "--", program, ..] => {
            return run::run(probes, ports, program, &arguments[5..]);
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("deploykit-agent: {message}");
            ExitCode::FAILURE
        }
    }
}

/// A runtime of one thread: no request wakes another one.
fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())
}

/// Takes as many descriptors as it may: each connection through a proxy needs two, and the usual
/// limit is 1024. The agent starts no process that would inherit this.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, connections wait for a free one, and the proxy says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn serve(folder: &Path) -> Result<(), String> {
    raise_descriptor_limit();
    let (control, data) = (runtime()?, runtime()?);
    let handle = data.handle().clone();
    // What waits for the disk must not hold requests up.
    std::thread::spawn(move || data.block_on(std::future::pending::<()>()));
    control.block_on(async {
        let mut end = signals()?;
        let server = Server::bind(folder).await.map_err(|e| e.to_string())?;
        let agent = Agent::open(folder, handle).map_err(|e| e.to_string())?;
        eprintln!("{} serves at {}", program(), socket(folder).display());
        tokio::select! {
            () = server.serve(&agent) => {}
            () = reap() => {}
            () = first(&mut end) => {}
        }
        tokio::select! {
            () = agent.close(GRACE) => {}
            () = first(&mut end) => {}
        }
        Ok(())
    })
}

fn signals() -> Result<[Signal; 2], String> {
    let listen = |kind| signal(kind).map_err(|e| format!("cannot listen to signals: {e}"));
    Ok([listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?])
}

async fn first([terminate, interrupt]: &mut [Signal; 2]) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Collects what others have left behind in this container, where this is its first process. The
/// agent itself starts no process.
async fn reap() {
    let Ok(mut ended) = signal(SignalKind::child()) else { return std::future::pending().await };
    let first = std::process::id() == 1;
    loop {
        while first && matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
        if ended.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

fn connect(socket: &PathBuf) -> Result<(), String> {
    let deadline = Instant::now() + START;
    let stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(e) if Instant::now() >= deadline => {
                return Err(format!("no agent serves at {}: {e}", socket.display()));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let failed = |e: io::Error| e.to_string();
    let (mut to_agent, mut from_agent) = (stream.try_clone().map_err(failed)?, stream);
    // Not through the standard library's own buffers: one of them waits for the end of a line.
    let own = |file: BorrowedFd<'_>| file.try_clone_to_owned().map(File::from).map_err(failed);
    let (mut input, mut output) = (own(rustix::stdio::stdin())?, own(rustix::stdio::stdout())?);
    std::thread::spawn(move || {
        let _ = copy(&mut input, &mut to_agent);
        // The client is gone.
        let _ = to_agent.shutdown(Shutdown::Both);
    });
    copy(&mut from_agent, &mut output).map_err(failed)
}

/// Copies until the end. `io::copy` would splice from the socket into a pipe, and hold the pipe's
/// lock while it waits for the socket: its reader never gets what is in it.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = Zeroizing::new(vec![0; 64 << 10]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
