//! Stands before an instance's program in its container, where an engine has no liveness probes:
//! asks them beside the program, and ends it when they fail. That starts it again is the engine's
//! matter.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use deploykit_agent::probe::{Prober, Target};
use deploykit_core::model::Probes;
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use tokio::process::{Child, Command};
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Signals that are passed on to the program.
const PASSED_ON: [(SignalKind, Signal); 6] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
];

/// Runs a program to its end, and ends as it has ended.
pub(crate) fn run(probes: &str, ports: &str, program: &str, arguments: &[String]) -> ExitCode {
    let ran = || -> io::Result<ExitCode> {
        let probes: Probes = serde_json::from_str(probes)?;
        let ports: Vec<u16> = ports.split(',').filter_map(|port| port.parse().ok()).collect();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(supervise(probes, &ports, program, arguments))
    };
    match ran() {
        Ok(code) => code,
        Err(e) => {
            eprintln!("deploykit-agent: {program} cannot be run: {e}");
            // What a shell answers for a program that it does not find, or cannot execute.
            ExitCode::from(if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 })
        }
    }
}

async fn supervise(
    probes: Probes,
    ports: &[u16],
    program: &str,
    arguments: &[String],
) -> io::Result<ExitCode> {
    let (pass_on, mut signals) = mpsc::unbounded_channel();
    for (kind, number) in PASSED_ON {
        let (mut received, pass_on) = (signal(kind)?, pass_on.clone());
        tokio::spawn(async move { while received.recv().await.is_some() && pass_on.send(number).is_ok() {} });
    }
    let mut child: Child = Command::new(program).args(arguments).spawn()?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let mut target = Target::new(ports.iter().map(|p| (*p, SocketAddr::from((Ipv4Addr::LOCALHOST, *p)))));
    target.environment = std::env::vars().collect();
    let mut health = Prober::spawn(probes, target);
    let status = loop {
        tokio::select! {
            ended = child.wait() => break ended?,
            Some(number) = signals.recv() => {
                if let Some(pid) = pid {
                    // It may have ended just now.
                    let _ = kill_process(pid, number);
                }
            }
            Ok(failed) = health.wait_for(|health| health.restart) => {
                let (probe, answer) = failed.failing.as_ref().map_or(("liveness", ""), |answer| (answer.probe.as_ref(), answer.text.as_str()));
                eprintln!("deploykit-agent: ended, since its {probe} probe fails: {answer}");
                drop(failed);
                child.start_kill()?;
                break child.wait().await?;
            }
        }
    };
    // What the program has left behind ends with this container.
    while matches!(rustix::process::wait(WaitOptions::NOHANG), Ok(Some(_))) {}
    Ok(code(status))
}

/// The exit code, and 128 more than a signal, as shells have it.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().or(status.signal().map(|signal| 128 + signal));
    ExitCode::from(u8::try_from(code.unwrap_or(1)).unwrap_or(1))
}
