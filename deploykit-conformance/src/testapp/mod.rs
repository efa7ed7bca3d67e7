//! The dialled test application: what the kit deploys.
//!
//! It reads the environment contract (`HOST`, `PORT`, `PORT_TCP`, …) and the
//! [dials](deploykit_core::memory::dial). On `PORT` it speaks HTTP/1.1 and HTTP/2 in the clear:
//!
//! | request | answer |
//! |---|---|
//! | `GET /` | its version and instance id as JSON |
//! | `GET /slow?ms=N` | the same, N milliseconds later |
//! | `GET /version`, `/instance`, `/args`, `/env`, `/count` | one of its facts |
//! | `GET /peer?name=S` | what the service S answers at the address that the environment tells |
//! | `GET /healthz` | 200, or 503 while its dials make it ill |
//! | `GET /file?path=P`, `PUT /file?path=P` | reads or writes a file; P may begin with `$VARIABLE/` |
//! | `POST /grpc.health.v1.Health/Check` | the [gRPC health protocol](https://grpc.io/docs/guides/health-checking/) |
//!
//! On `PORT_TCP`, where that is set, it echoes bytes. As `testapp exec …` it is a command to run
//! beside an instance: `env`, `echo WORDS`, `cat`, `false`, `healthy`, `terminal`.

mod exec;
mod http;

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use deploykit_core::memory::Dials;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

/// The word that tells a program that it shall be the test application: its first argument.
pub const WORD: &str = "testapp";

/// How long an idle connection is kept open for a last request.
const LINGER: Duration = Duration::from_secs(1);

/// What a running test application knows of itself.
struct Testapp {
    dials: Dials,
    env: BTreeMap<String, String>,
    args: Vec<String>,
    began: Instant,
    served: AtomicU64,
    /// Its open connections.
    connections: AtomicU64,
    /// Whether it has been asked to end: then each connection is closed with its next answer.
    ending: AtomicBool,
}

impl Testapp {
    fn healthy(&self) -> bool {
        self.dials.healthy(self.began.elapsed())
    }

    fn instance(&self) -> &str {
        self.env.get("DEPLOYKIT_INSTANCE").map_or("", String::as_str)
    }

    /// A path that may begin with a variable of the environment.
    fn expand(&self, path: &str) -> String {
        let split = path.strip_prefix('$').and_then(|rest| rest.split_once('/'));
        let known = split.and_then(|(name, rest)| Some((self.env.get(name)?, rest)));
        known.map_or_else(|| path.to_owned(), |(folder, rest)| format!("{folder}/{rest}"))
    }

    fn facts(&self) -> String {
        serde_json::json!({ "version": self.dials.version, "instance": self.instance() })
            .to_string()
    }
}

/// Runs the test application, where the first argument is [`WORD`], until it ends.
pub fn run_if_asked() -> Option<ExitCode> {
    (std::env::args().nth(1).as_deref() == Some(WORD)).then(run)
}

/// Runs the test application until it ends.
pub fn run() -> ExitCode {
    let args: Vec<String> =
        std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let own = args.iter().map(String::as_str).skip_while(|arg| *arg == WORD);
    if own.clone().next() == Some("exec") {
        return exec::run(&own.skip(1).collect::<Vec<_>>());
    }
    let env: BTreeMap<String, String> = std::env::vars_os()
        .map(|(k, v)| (k.to_string_lossy().into_owned(), v.to_string_lossy().into_owned()))
        .collect();
    let app = Arc::new(Testapp {
        dials: Dials::read(&env),
        env,
        args,
        began: Instant::now(),
        served: AtomicU64::new(0),
        connections: AtomicU64::new(0),
        ending: AtomicBool::new(false),
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.and_then(|runtime| runtime.block_on(serve(app)));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("testapp: {error}");
            ExitCode::from(70)
        }
    }
}

async fn serve(app: Arc<Testapp>) -> std::io::Result<u8> {
    let stopped = asked_to_stop(&app.dials)?;
    println!("testapp {} started as {}", app.dials.version, app.instance());
    if let Some(line) = &app.dials.print {
        println!("{line}");
    }
    let ballast = vec![1_u8; (app.dials.eat_mib << 20) as usize];
    if fails_this_run(&app)? {
        eprintln!("told to fail");
        return Ok(1);
    }
    let served = tokio::spawn(listen(app.clone()));
    let ends = async {
        match app.dials.exit_after {
            Some(after) => sleep(after.saturating_sub(app.began.elapsed())).await,
            None => std::future::pending().await,
        }
    };
    let code = tokio::select! {
        failed = served => return failed.unwrap_or_else(|e| Err(std::io::Error::other(e))),
        () = ends => app.dials.exit_code as u8,
        name = stopped => {
            println!("stopping on {name}");
            tokio::join!(sleep(app.dials.drain), farewell(&app));
            0
        }
    };
    drop(ballast);
    Ok(code)
}

/// Lets clients that keep their connections hear of the end with an answer: one whose request is on
/// its way when its connection is closed would have lost it.
async fn farewell(app: &Testapp) {
    app.ending.store(true, Ordering::Relaxed);
    let began = Instant::now();
    while app.connections.load(Ordering::Relaxed) > 0 && began.elapsed() < LINGER {
        sleep(Duration::from_millis(5)).await;
    }
}

/// Listens for signals from now on, and waits for one that asks it to end; forever where it takes
/// no notice.
fn asked_to_stop(dials: &Dials) -> std::io::Result<impl Future<Output = &'static str> + use<>> {
    let signals = [
        ("Term", SignalKind::terminate()),
        ("Int", SignalKind::interrupt()),
        ("Quit", SignalKind::quit()),
        ("Hup", SignalKind::hangup()),
        ("Usr1", SignalKind::user_defined1()),
        ("Usr2", SignalKind::user_defined2()),
    ];
    let mut waits = Vec::new();
    for (name, kind) in signals {
        let mut signal = signal(kind)?;
        waits.push(Box::pin(async move {
            signal.recv().await;
            name
        }));
    }
    let ignore = dials.ignore_stop;
    Ok(async move {
        if ignore {
            // The handlers stay installed, so that the signals do nothing.
            let _waits = waits;
            std::future::pending::<()>().await;
            return "";
        }
        futures_util::future::select_all(waits).await.0
    })
}

/// Writes down this run, where it is told to, and returns whether it shall fail.
fn fails_this_run(app: &Testapp) -> std::io::Result<bool> {
    let Some(volume) = &app.dials.runs else { return Ok(false) };
    let folder = app.env.get("VOLUMES_DIR").map_or("", String::as_str);
    let path = Path::new(folder).join(volume).join("runs");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    writeln!(file, "{}", app.instance())?;
    let runs = std::fs::read_to_string(&path)?.lines().count() as u64;
    Ok(runs <= app.dials.fail_runs)
}

/// Serves until a listener fails; forever where there is no port.
async fn listen(app: Arc<Testapp>) -> std::io::Result<u8> {
    sleep(app.dials.start_delay).await;
    let host = app.env.get("HOST").map_or("127.0.0.1", String::as_str);
    let port = |name: &str| app.env.get(name).and_then(|port| port.parse::<u16>().ok());
    if let Some(port) = port("PORT_TCP") {
        tokio::spawn(echo(TcpListener::bind((host, port)).await?));
    }
    let Some(port) = port("PORT") else { return std::future::pending().await };
    let listener = TcpListener::bind((host, port)).await?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(http::serve(app.clone(), stream))),
            // Out of descriptors, or the client has gone already.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
    }
}

async fn echo(listener: TcpListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                if stream.write_all(&buffer[..n]).await.is_err() {
                    return;
                }
            }
        });
    }
}
