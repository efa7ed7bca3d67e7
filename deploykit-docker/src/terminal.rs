//! Commands in a terminal.

use std::time::Duration;

use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use deploykit_core::{
    ErrorKind, ExecOutput, OutputStream, Result, Terminal, TerminalInput, TerminalSize,
};
use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt as _, TryStreamExt as _};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};
use tokio_util::io::ReaderStream;
use tokio_util::sync::CancellationToken;

use crate::engine::Engine;
use crate::error::{Mapped as _, error};
use crate::exec;

const RUN: &str = "run a command in a terminal";

/// How often the first size is told: the engine starts the command after it has answered, and
/// until then there is nothing to be told.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

/// `^C` and `^D`.
const FAREWELL: &[u8] = &[3, 4];

/// Runs a command in a container. The terminal's bytes are read as they are: the client library
/// takes those that begin with 0, 1 or 2 for frames.
pub(crate) async fn run(
    of: Engine,
    container: &str,
    command: Vec<String>,
    terminal: Terminal,
) -> Result<BoxStream<'static, Result<ExecOutput>>> {
    let options = CreateExecOptions {
        attach_stdin: Some(true),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        tty: Some(true),
        cmd: Some(command),
        ..CreateExecOptions::default()
    };
    let id = of.api.create_exec(container, options).await.tried(RUN)?.id;
    let start = serde_json::json!({ "Detach": false, "Tty": true });
    let path = format!("/exec/{id}/start");
    let connection = of.transport.clone().upgrade(&path, start.to_string()).await.tried(RUN)?;
    let (read, write) = tokio::io::split(TokioIo::new(connection));
    let gone = CancellationToken::new();
    tokio::spawn(type_in(of.clone(), id.clone(), terminal, write, gone.clone()));
    let listener = gone.drop_guard();
    let output = ReaderStream::new(read)
        .map_ok(|bytes| ExecOutput::Output(OutputStream::Stdout, bytes.to_vec()))
        .map_err(|cause| {
            let message = format!("the connection to the engine broke off: {cause}");
            error(ErrorKind::Unavailable, RUN, message)
        });
    let end = stream::once(async move { exec::ended(&of, &id).await });
    let watched = move |_: &Result<ExecOutput>| {
        let _until_nobody_listens = &listener;
    };
    Ok(output.chain(end).inspect(watched).boxed())
}

/// Does at the command's terminal what is done at the caller's, until nobody listens any more.
async fn type_in(
    of: Engine,
    id: String,
    mut terminal: Terminal,
    mut command: impl AsyncWrite + Unpin,
    gone: CancellationToken,
) {
    let resize = async |to: TerminalSize| {
        let size = ResizeExecOptions { height: to.rows, width: to.columns };
        of.api.resize_exec(&id, size).await.is_ok()
    };
    let typing = async {
        for _ in 0..TRIES {
            if resize(terminal.size()).await {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        loop {
            match terminal.next().await {
                TerminalInput::Keys(keys) => {
                    if command.write_all(&keys).await.is_err() {
                        return;
                    }
                }
                TerminalInput::Size(size) => {
                    let _ = resize(size).await;
                }
            }
        }
    };
    let _ = gone.run_until_cancelled(typing).await;
    // An engine lets a command run on whose terminal has gone. As if hung up, it is interrupted and
    // told of the end of its input, which ends shells and what they run in the foreground.
    let farewell = async {
        let _ = command.write_all(FAREWELL).await;
        let _ = command.shutdown().await;
    };
    let _ = tokio::time::timeout(PAUSE * TRIES, farewell).await;
}
