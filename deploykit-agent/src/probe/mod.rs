//! Probes asked of one instance.
//!
//! The three probes and their thresholds mean what they mean in [Kubernetes]: until the startup
//! probe has passed the others are not asked, a failing readiness probe takes the instance out of
//! the balancing, a failing startup or liveness probe asks for a new start. Different is how often
//! is asked: until a probe has passed for the first time the pause is a sixteenth of the time since
//! its first question (5 ms at least, the interval at most), so that a start is noticed within a
//! few per cent of the time it took. The first is asked after 2 ms. These eager questions do not bring a failure forward: before
//! the first success a probe fails at the earliest after
//! `initial_delay + interval * failure_threshold`.
//!
//! ```
//! use deploykit_agent::probe::{Prober, Target};
//! use deploykit_core::model::{Probe, Probes};
//! use tokio::io::{AsyncReadExt, AsyncWriteExt};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let target = Target::new([(8080, listener.local_addr()?)]);
//! tokio::spawn(async move {
//!     while let Ok((mut stream, _)) = listener.accept().await {
//!         let _ = stream.read(&mut [0; 512]).await;
//!         let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
//!     }
//! });
//!
//! let probes = Probes { readiness: Some(Probe::http("/healthz")), ..Probes::default() };
//! let mut health = Prober::spawn(probes, target);
//! health.wait_for(|health| health.ready).await.unwrap();
//! # Ok(())
//! # }
//! ```
//!
//! [Kubernetes]: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/

mod exec;
mod grpc;
mod http;
mod schedule;
mod tcp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use deploykit_core::model::{Check, Probe, Probes};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

use schedule::Schedule;

/// How to reach one instance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// Where each of the service's ports is served, the first port first.
    pub ports: Vec<(u16, SocketAddr)>,
    /// The whole environment of a command that is run.
    pub environment: BTreeMap<String, String>,
    /// The folder a command is run in; absent, that of this process.
    pub workdir: Option<PathBuf>,
}

impl Target {
    /// An instance that serves the given ports of its service at the given addresses.
    pub fn new(ports: impl IntoIterator<Item = (u16, SocketAddr)>) -> Self {
        Self { ports: ports.into_iter().collect(), ..Self::default() }
    }

    fn address(&self, port: Option<u16>) -> Result<SocketAddr, String> {
        let mut ports = self.ports.iter();
        match port {
            None => ports.next().map(|(_, addr)| *addr).ok_or("the service has no port".to_owned()),
            Some(port) => ports
                .find(|(declared, _)| *declared == port)
                .map(|(_, addr)| *addr)
                .ok_or_else(|| format!("{port} is not one of the service's ports")),
        }
    }
}

/// What a probe was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Answer {
    /// `startup`, `readiness` or `liveness`.
    pub probe: String,
    /// What the instance answered, or why it could not be asked.
    pub text: String,
}

/// What the probes say of an instance.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// The startup probe has passed, or there is none.
    pub started: bool,
    /// It may take requests: started, and the readiness probe passes or there is none.
    pub ready: bool,
    /// The startup or liveness probe has failed: the instance wants a new start. Nothing is asked
    /// any more then.
    pub restart: bool,
    /// The probe that has failed often enough, and its last answer.
    pub failing: Option<Answer>,
    /// The last answer that was no success, of any probe. It changes without a notice.
    pub last: Option<Answer>,
}

/// Asks the probes of one instance.
#[derive(Debug)]
pub struct Prober;

impl Prober {
    /// Asks from now on, on the current Tokio runtime, until every receiver is dropped or
    /// [`Health::restart`] is set. The receiver is notified when anything but [`Health::last`]
    /// changes.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn spawn(probes: Probes, target: Target) -> watch::Receiver<Health> {
        let (sender, receiver) = watch::channel(Health::default());
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = run(&probes, &target, &sender) => {}
            }
        });
        receiver
    }
}

async fn run(probes: &Probes, target: &Target, health: &watch::Sender<Health>) {
    if let Some(startup) = &probes.startup {
        let mut schedule = Schedule::new(startup);
        while !schedule.is_passing() {
            step("startup", startup, &mut schedule, target, health).await;
            if schedule.has_failed() {
                health.send_modify(|health| health.restart = true);
                return;
            }
        }
    }
    health.send_modify(|health| {
        health.started = true;
        health.ready = probes.readiness.is_none();
    });
    let readiness = async {
        let Some(readiness) = &probes.readiness else { return std::future::pending().await };
        let mut schedule = Schedule::new(readiness);
        loop {
            step("readiness", readiness, &mut schedule, target, health).await;
            let ready = schedule.is_passing();
            health.send_if_modified(|health| std::mem::replace(&mut health.ready, ready) != ready);
        }
    };
    let liveness = async {
        let Some(liveness) = &probes.liveness else { return std::future::pending().await };
        let mut schedule = Schedule::new(liveness);
        while !schedule.has_failed() {
            step("liveness", liveness, &mut schedule, target, health).await;
        }
        health.send_modify(|health| health.restart = true);
    };
    tokio::select! {
        () = readiness => {}
        () = liveness => {}
    }
}

/// Waits until the next question is due, asks it, and notes the answer.
async fn step(
    name: &'static str,
    probe: &Probe,
    schedule: &mut Schedule,
    target: &Target,
    health: &watch::Sender<Health>,
) {
    tokio::time::sleep_until(schedule.next()).await;
    let answer = ask(probe, target).await;
    schedule.answered(answer.is_ok());
    let failed = schedule.has_failed();
    health.send_if_modified(|health| {
        let of_this = |answer: &Answer| answer.probe == name;
        match answer {
            Ok(_) => {
                health.last.take_if(|answer| of_this(answer));
                health.failing.take_if(|answer| of_this(answer)).is_some()
            }
            Err(text) => {
                let answer = Answer { probe: name.to_owned(), text };
                let news = failed && health.failing.as_ref() != Some(&answer);
                if failed {
                    health.failing = Some(answer.clone());
                }
                health.last = Some(answer);
                news
            }
        }
    });
}

/// Asks a probe once, within its timeout; its interval and thresholds play no part.
///
/// Cancel-safe: the connection is closed, or the command and what it started is killed.
///
/// # Errors
/// What the instance answered when that is no success, or why it could not be asked.
pub async fn ask(probe: &Probe, target: &Target) -> Result<String, String> {
    let asked = async {
        match &probe.check {
            Check::Http(check) => http::ask(check, target.address(check.port)?).await,
            Check::Tcp(check) => tcp::ask(target.address(check.port)?).await,
            Check::Exec(check) => exec::ask(check, target).await,
            Check::Grpc(check) => grpc::ask(check, target.address(check.port)?).await,
            other => Err(format!("this release cannot ask a {} probe", other.kind())),
        }
    };
    match timeout(probe.timeout, asked).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {:?}", probe.timeout)),
    }
}

/// Text of a peer for a person to read: one line, not long.
fn excerpt(bytes: &[u8]) -> String {
    const MAX: usize = 300;
    let text = String::from_utf8_lossy(bytes);
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > MAX {
        line.truncate(line.floor_char_boundary(MAX));
        line.push('…');
    }
    line.replace(|c: char| c.is_control(), "\u{fffd}")
}
