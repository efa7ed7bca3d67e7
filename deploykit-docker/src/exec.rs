//! Commands beside an instance.

use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecOptions, StartExecResults};
use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, ExecOutput, ExecRequest, Exit, OutputStream, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::io::AsyncWriteExt as _;

use crate::engine::Engine;
use crate::error::{Mapped as _, engine, error};
use crate::{names, terminal};

const RUN: &str = "run a command";

/// Runs a command in the container of an instance.
pub(crate) async fn run(
    of: Engine,
    app: &AppName,
    instance: &str,
    request: ExecRequest,
) -> Result<BoxStream<'static, Result<ExecOutput>>> {
    let missing = || {
        let message = "the app has no such instance";
        error(ErrorKind::NotFound, RUN, message).with("app", app).with("instance", instance)
    };
    let name = names::instance(app, instance);
    let there = of.api.inspect_container(&name, None).await.optional(RUN)?;
    let labels = there.and_then(|container| container.config?.labels).unwrap_or_default();
    if !names::are_ours(&labels, app) {
        return Err(missing());
    }
    if let Some(terminal) = request.terminal {
        return terminal::run(of, &name, request.command, terminal).await;
    }
    let options = CreateExecOptions {
        attach_stdin: Some(!request.stdin.is_empty()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        cmd: Some(request.command),
        ..CreateExecOptions::default()
    };
    let id = of.api.create_exec(&name, options).await.tried(RUN)?.id;
    let started = of.api.start_exec(&id, Some(StartExecOptions::default())).await.tried(RUN)?;
    let StartExecResults::Attached { output, mut input } = started else {
        return Err(error(ErrorKind::Failed, RUN, "the engine has not attached to the command"));
    };
    if !request.stdin.is_empty() {
        tokio::spawn(async move {
            // A command need not read its input to the end.
            let _ = input.write_all(&request.stdin).await;
            let _ = input.shutdown().await;
        });
    }
    let output = output.filter_map(|piece| {
        let piece = match piece {
            Ok(LogOutput::StdOut { message } | LogOutput::Console { message }) => {
                Some(Ok(ExecOutput::Output(OutputStream::Stdout, message.to_vec())))
            }
            Ok(LogOutput::StdErr { message }) => {
                Some(Ok(ExecOutput::Output(OutputStream::Stderr, message.to_vec())))
            }
            Ok(LogOutput::StdIn { .. }) => None,
            Err(cause) => Some(Err(engine(RUN, cause))),
        };
        std::future::ready(piece)
    });
    let end = stream::once(async move { ended(&of, &id).await });
    Ok(output.chain(end).boxed())
}

/// How the command has ended.
pub(crate) async fn ended(of: &Engine, id: &str) -> Result<ExecOutput, Error> {
    // The output may end a moment before the engine has noticed the end of the process.
    for _ in 0..50 {
        let state = of.api.inspect_exec(id).await.tried(RUN)?;
        if state.running != Some(true) {
            let code = state.exit_code.and_then(|code| i32::try_from(code).ok());
            return Ok(ExecOutput::Exit(code.map_or(Exit::Lost, Exit::Code)));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(ExecOutput::Exit(Exit::Lost))
}
