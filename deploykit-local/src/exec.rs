//! A command beside an instance: a child of the caller, with the instance's environment.

use std::io;
use std::process::Stdio;
use std::sync::Arc;

use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, ExecOutput, ExecRequest, Exit, OutputStream, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::Client;
use crate::error::BACKEND;
use crate::protocol::{Request, Surroundings};
use crate::terminal;

/// How much output may wait for a slow reader, in pieces of 16 KiB at most.
const BACKLOG: usize = 16;

/// A running command. Dropping it ends the command and what it started.
struct Running {
    child: Child,
    group: Option<Pid>,
    output: mpsc::Receiver<ExecOutput>,
    _tasks: JoinSet<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

pub(crate) async fn run(
    client: &Arc<Client>,
    app: &AppName,
    instance: &str,
    request: ExecRequest,
) -> Result<BoxStream<'static, Result<ExecOutput>>> {
    let failed = |kind, message: String| {
        let error = Error::new(kind, "run a command beside an instance", message);
        error.on(BACKEND).with("app", app).with("instance", instance)
    };
    let Some((program, args)) = request.command.split_first() else {
        return Err(failed(ErrorKind::Invalid, "the command is empty; name a program".into()));
    };
    let asked = Request::Surroundings { app: app.clone(), instance: instance.to_owned() };
    let Surroundings { mut env, workdir } = client.call(asked).await?;
    let cannot =
        |e: io::Error| failed(ErrorKind::Failed, format!("`{program}` cannot be executed: {e}"));
    let (sender, output) = mpsc::channel(BACKLOG);
    let mut tasks = JoinSet::new();
    let mut command = match request.terminal {
        Some(terminal) => {
            let prepared = terminal::prepare(program, args, terminal.size()).map_err(cannot)?;
            env.entry("TERM".into()).or_insert_with(|| "xterm".into());
            env.insert(terminal::VARIABLE.into(), "1".into());
            tasks.spawn(terminal::type_in(terminal, prepared.input));
            tasks.spawn(forward(prepared.output, OutputStream::Stdout, sender.clone()));
            prepared.command
        }
        None => {
            let mut command = Command::new(program);
            command.args(args).process_group(0);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            command
        }
    };
    command.env_clear();
    command.envs(env).current_dir(workdir).kill_on_drop(true);
    let mut child = command.spawn().map_err(cannot)?;
    // With it go our copies of the terminal's other end, which would keep its output open.
    drop(command);
    if let Some(mut stdin) = child.stdin.take() {
        tasks.spawn(async move {
            // A command that does not read to the end is free to do so.
            let _ = stdin.write_all(&request.stdin).await;
        });
    }
    if let Some(stdout) = child.stdout.take() {
        tasks.spawn(forward(stdout, OutputStream::Stdout, sender.clone()));
    }
    if let Some(stderr) = child.stderr.take() {
        tasks.spawn(forward(stderr, OutputStream::Stderr, sender.clone()));
    }
    drop(sender);
    let group = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let running = Running { child, group, output, _tasks: tasks };
    let next = |running: Option<Running>| async move {
        let mut running = running?;
        if let Some(output) = running.output.recv().await {
            return Some((Ok(output), Some(running)));
        }
        // Both outputs are closed.
        let exit = running.child.wait().await;
        running.group = None;
        let exit = exit.map(exit_of).map(ExecOutput::Exit).map_err(|e| {
            Error::new(ErrorKind::Failed, "run a command beside an instance", e.to_string())
                .on(BACKEND)
        });
        Some((exit, None))
    };
    Ok(stream::unfold(Some(running), next).boxed())
}

async fn forward(
    mut from: impl AsyncRead + Unpin,
    stream: OutputStream,
    to: mpsc::Sender<ExecOutput>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.send(ExecOutput::Output(stream, buffer[..read].to_vec())).await.is_err() {
            return;
        }
    }
}

fn exit_of(status: std::process::ExitStatus) -> Exit {
    use std::os::unix::process::ExitStatusExt as _;
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Lost,
    }
}
