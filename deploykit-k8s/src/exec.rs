//! Commands beside instances.

use deploykit_core::model::AppName;
use deploykit_core::{
    ErrorKind, ExecOutput, ExecRequest, Exit, OutputStream, Result, TerminalInput, TerminalSize,
};
use futures_util::stream::BoxStream;
use futures_util::{SinkExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::ResourceExt;
use kube::api::{AttachParams, TerminalSize as KubeSize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::cluster::Cluster;
use crate::error::error;
use crate::labels;

const OPERATION: &str = "run a command";
const CHUNK: usize = 16 * 1024;

/// Runs a command in the container of an instance. Dropping the stream closes the connection.
pub(crate) async fn exec(
    cluster: &Cluster,
    app: &AppName,
    instance: &str,
    request: ExecRequest,
) -> Result<BoxStream<'static, Result<ExecOutput>>> {
    let pod = cluster.get::<Pod>(OPERATION, instance).await?;
    let of = pod.as_ref().and_then(|pod| pod.labels().get(labels::APP));
    if of.is_none_or(|of| *app != of.as_str()) {
        let message = format!("there is no instance {instance}");
        return Err(error(ErrorKind::NotFound, OPERATION, message).with("app", app));
    }
    let params = match request.terminal {
        Some(_) => AttachParams::interactive_tty(),
        None => AttachParams::default().stdin(!request.stdin.is_empty()).stdout(true).stderr(true),
    };
    let api = cluster.lasting::<Pod>();
    let mut process =
        cluster.once(OPERATION, || api.exec(instance, request.command.clone(), &params)).await?;
    let (sender, receiver) = mpsc::channel(16);
    let (stdin, resize) = (process.stdin(), process.terminal_size());
    let (stdout, stderr) = (process.stdout(), process.stderr());
    let ended = process.take_status();
    tokio::spawn(async move {
        let write = async {
            let Some(mut stdin) = stdin else { return };
            // A command that does not read to the end is none the worse.
            let (Some(mut terminal), Some(mut resize)) = (request.terminal, resize) else {
                let _ = stdin.write_all(&request.stdin).await;
                let _ = stdin.shutdown().await;
                return;
            };
            let _ = resize.send(size(terminal.size())).await;
            loop {
                let told = match terminal.next().await {
                    TerminalInput::Keys(keys) => stdin.write_all(&keys).await.is_ok(),
                    TerminalInput::Size(changed) => resize.send(size(changed)).await.is_ok(),
                };
                if !told {
                    return;
                }
            }
        };
        let outputs = async {
            tokio::join!(
                copy(stdout, OutputStream::Stdout, sender.clone()),
                copy(stderr, OutputStream::Stderr, sender.clone()),
            )
        };
        let run = async {
            // The outputs end with the command, which may leave its input unread.
            let write = async {
                write.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                _ = outputs => {}
                () = write => {}
            }
            let said = match ended {
                Some(ended) => ended.await,
                None => None,
            };
            let exit = exit(said);
            let failed = process.join().await;
            let last = match (exit, failed) {
                (Ok(exit), _) => Ok(ExecOutput::Exit(exit)),
                (Err(_), Err(source)) => {
                    let message = "the connection broke off";
                    Err(error(ErrorKind::Unavailable, OPERATION, message).because(source))
                }
                (Err(error), Ok(())) => Err(error),
            };
            let _ = sender.send(last).await;
        };
        tokio::select! {
            () = run => {}
            () = sender.closed() => {}
        }
    });
    Ok(stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver)))
        .boxed())
}

fn size(size: TerminalSize) -> KubeSize {
    KubeSize { width: size.columns, height: size.rows }
}

async fn copy(
    from: Option<impl AsyncReadExt + Unpin>,
    stream: OutputStream,
    to: mpsc::Sender<Result<ExecOutput>>,
) {
    let Some(mut from) = from else { return };
    let mut buffer = vec![0; CHUNK];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if to.send(Ok(ExecOutput::Output(stream, buffer[..read].to_vec()))).await.is_err() {
            return;
        }
    }
}

/// How a command ended, by the status that comes last.
fn exit(said: Option<Status>) -> Result<Exit> {
    let Some(said) = said else {
        let message = "the connection ended without a word of how the command did";
        return Err(error(ErrorKind::Unavailable, OPERATION, message));
    };
    if said.status.as_deref() == Some("Success") {
        return Ok(Exit::Code(0));
    }
    let causes = said.details.iter().flat_map(|details| details.causes.iter().flatten());
    let code = causes
        .filter(|cause| cause.reason.as_deref() == Some("ExitCode"))
        .find_map(|cause| cause.message.as_ref()?.parse().ok());
    code.map(Exit::Code).ok_or_else(|| {
        let message = format!("it cannot be run: {}", said.message.unwrap_or_default());
        error(ErrorKind::Failed, OPERATION, message)
    })
}
