//! The supervisor as a process of its own: the program itself, executed again.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deploykit_core::{Error, ErrorKind, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::error::{self, BACKEND};
use crate::folder::Folder;
use crate::logs;
use crate::server::Server;
use crate::supervisor::Supervisor;
use crate::terminal;

/// The variable that makes [`init`] a supervisor.
pub(crate) const VARIABLE: &str = "DEPLOYKIT_SUPERVISE";
/// How long a supervisor may take to come up: it may have to end what was left behind.
const START: Duration = Duration::from_secs(60);
/// How long it stays with nothing to host and no client.
const LINGER: Duration = Duration::from_secs(1);
/// A supervisor's log begins anew when it is longer than this.
const LONGEST_LOG: u64 = 1 << 20;

static INITIALISED: AtomicBool = AtomicBool::new(false);

/// What a supervisor is told.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Orders {
    pub(crate) folder: PathBuf,
    pub(crate) keys: PathBuf,
    /// Whether it leaves the session of whoever started it.
    pub(crate) detached: bool,
}

/// What a supervisor reports on its standard output when it is up, or cannot come up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Report {
    Ready,
    /// Another process supervises the folder.
    Busy,
    Failed(Error),
}

/// Lets this program serve as its own supervisor: to be called first in `main`, before anything
/// else is started. It returns at once, unless this very process is to be a supervisor: then it
/// serves, and ends the process. Likewise it becomes the command that shall run in a terminal.
///
/// ```
/// deploykit_local::init();
/// // ... the program
/// ```
pub fn init() {
    INITIALISED.store(true, Ordering::Relaxed);
    if std::env::var_os(terminal::VARIABLE).is_some() {
        eprintln!("{}", terminal::become_command());
        std::process::exit(127);
    }
    if let Some(orders) = std::env::var_os(VARIABLE) {
        let code = match serde_json::from_slice(orders.as_encoded_bytes()) {
            // On a thread of its own: `main` may run within a tokio runtime already.
            Ok(orders) => std::thread::spawn(move || run(&orders)).join().unwrap_or(101),
            Err(e) => {
                report(&Report::Failed(Error::new(
                    ErrorKind::Invalid,
                    "start the supervisor",
                    e.to_string(),
                )));
                2
            }
        };
        std::process::exit(code);
    }
}

/// Whether this program can be executed again.
pub(crate) fn is_initialised() -> bool {
    INITIALISED.load(Ordering::Relaxed)
}

/// Refuses a detached supervisor where the program could not serve as one.
pub(crate) fn check_init() -> Result<()> {
    if is_initialised() {
        return Ok(());
    }
    let message = "instances that outlive this program need a supervisor, which is this program executed again: \
        call `deploykit::init()` first in `main`, or choose `Lifetime::Program`";
    Err(Error::new(ErrorKind::Unsupported, "open the local backend", message).on(BACKEND))
}

/// Starts a supervisor. `false` where another process supervises the folder, or is about to.
/// Cancel-safe: a supervisor that was started comes up all the same, and ends when nobody wants it.
pub(crate) async fn start(folder: &Folder, keys: &Path) -> Result<bool> {
    check_init()?;
    let orders = Orders { folder: folder.path().to_owned(), keys: keys.to_owned(), detached: true };
    let orders = serde_json::to_string(&orders).map_err(|e| failed(e.to_string()))?;
    let log = open_log(&folder.supervisor_log())
        .map_err(|e| error::io("open the supervisor's log", folder.path(), e))?;
    // The program's path may name another file by now: it may have been built again.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("deploykit-supervisor")
        .arg(folder.path())
        // What the deployer has in its environment, secrets perhaps, is no business of a process
        // that stays.
        .env_clear()
        .env(VARIABLE, orders)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    let mut child =
        command.spawn().map_err(|e| error::io("start the supervisor", folder.path(), e))?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        let read = tokio::time::timeout(START, stdout.read_line(&mut line));
        let read =
            read.await.map_err(|_| failed(format!("it was not up after {} s", START.as_secs())))?;
        read.map_err(|e| failed(e.to_string()))?;
    }
    match serde_json::from_str(&line) {
        Ok(Report::Ready) => Ok(true),
        Ok(Report::Busy) => Ok(false),
        Ok(Report::Failed(e)) => Err(e),
        Err(_) => {
            Err(failed(format!("it ended at once; see {}", folder.supervisor_log().display())))
        }
    }
}

fn failed(message: String) -> Error {
    Error::new(ErrorKind::Failed, "start the supervisor", message).on(BACKEND)
}

fn open_log(path: &Path) -> std::io::Result<File> {
    let log = logs::open_for_append(path)?;
    if log.metadata()?.len() > LONGEST_LOG {
        log.set_len(0)?;
    }
    Ok(log)
}

/// Tells whoever started this. It may be gone by now, which changes nothing.
fn report(report: &Report) {
    let line = serde_json::to_string(report).unwrap_or_default();
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
    // From now on whoever started this is not kept waiting by the open pipe.
    let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
}

/// Is a supervisor until there is nothing left to do; returns the exit code.
fn run(orders: &Orders) -> i32 {
    if orders.detached {
        // Fails where this leads a session already: then it is detached.
        let _ = rustix::process::setsid();
    }
    // A thread of its own: `init` may have been called in an asynchronous `main`, whose thread
    // cannot block on another runtime.
    let result = std::thread::scope(|scope| scope.spawn(|| serve(orders)).join())
        .unwrap_or_else(|_| Err(failed("it panicked".into())));
    match result {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("{e}");
            report(&Report::Failed(e));
            1
        }
    }
}

fn serve(orders: &Orders) -> Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_stack_size(256 << 10)
        .build()
        .map_err(|e| failed(e.to_string()))?
        .block_on(supervise(orders))
}

async fn supervise(orders: &Orders) -> Result<()> {
    let folder = Folder::open(&orders.folder)?;
    let Some(lock) = folder.lock()? else {
        eprintln!("another supervisor serves {}", folder.path().display());
        report(&Report::Busy);
        return Ok(());
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(|e| failed(e.to_string()))?;
    let supervisor = Supervisor::open(folder.clone(), lock, orders.keys.clone(), true).await?;
    let server = Server::bind(&folder)?;
    report(&Report::Ready);
    let end = CancellationToken::new();
    let idle = async {
        let mut since = tokio::time::Instant::now();
        while since.elapsed() < LINGER {
            tokio::time::sleep(LINGER / 4).await;
            if server.clients() > 0 || !supervisor.is_idle() {
                since = tokio::time::Instant::now();
            }
        }
    };
    tokio::select! {
        () = server.serve(&supervisor, &end) => Ok(()),
        // Its instances go on, and are adopted by the next supervisor.
        _ = terminate.recv() => {
            let _ = std::fs::remove_file(folder.socket());
            Ok(())
        }
        () = idle => {
            let _ = std::fs::remove_file(folder.socket());
            supervisor.clear_if_empty()
        }
    }
}
