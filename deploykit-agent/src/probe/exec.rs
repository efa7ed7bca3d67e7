//! A command that ends with exit code 0.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::Stdio;
use std::time::Duration;

use deploykit_core::model::ExecCheck;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::time::timeout;

use super::{Target, excerpt};

/// What is kept of a command's output.
const MAX_OUTPUT: usize = 4096;
/// How long output is waited for after the end: a child left behind may hold the pipe open.
const REST: Duration = Duration::from_millis(50);

/// Kills the command and all it started, unless it ended by itself.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // An error means that nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

pub(super) async fn ask(check: &ExecCheck, target: &Target) -> Result<String, String> {
    let (program, arguments) = check.command.split_first().ok_or("there is no command")?;
    let cannot = |error: std::io::Error| format!("{program} cannot be run: {error}");
    let (reader, writer) = std::io::pipe().map_err(cannot)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .envs(&target.environment)
        .stdin(Stdio::null())
        .stdout(writer.try_clone().map_err(cannot)?)
        .stderr(writer)
        .process_group(0);
    if let Some(workdir) = &target.workdir {
        command.current_dir(workdir);
    }
    let mut child = command.spawn().map_err(cannot)?;
    // The command holds our ends of the pipe.
    drop(command);
    let mut group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let mut output = pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).map_err(cannot)?;
    let mut text = Vec::new();
    let read = async {
        let mut block = [0; 512];
        // Read on beyond what is kept, so that the command never waits for us.
        while let Ok(n @ 1..) = output.read(&mut block).await {
            text.extend_from_slice(&block[..n.min(MAX_OUTPUT.saturating_sub(text.len()))]);
        }
    };
    let mut read = std::pin::pin!(read);
    let (status, open) = tokio::select! {
        status = child.wait() => (status.map_err(cannot)?, true),
        () = &mut read => (child.wait().await.map_err(cannot)?, false),
    };
    group.0 = None;
    if open {
        let _ = timeout(REST, read).await;
    }
    let end = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "ended without an exit code".to_owned(),
    };
    match (status.success(), excerpt(&text)) {
        (true, _) => Ok(end),
        (false, text) if text.is_empty() => Err(end),
        (false, text) => Err(format!("{end}: {text}")),
    }
}
