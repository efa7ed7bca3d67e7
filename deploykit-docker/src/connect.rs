//! Ways to reach an engine.

use std::io;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::ChildStdin;

use crate::config::Host;

/// A connection to an engine.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Opens a connection.
pub(crate) async fn connect(host: &Host) -> io::Result<Box<dyn Stream>> {
    match host {
        Host::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        Host::Tcp(address) => Ok(Box::new(tcp(address).await?)),
        Host::Tls(address, files) => {
            let connector = tokio_rustls::TlsConnector::from(Arc::new(crate::tls::client(files)?));
            let name = address.rsplit_once(':').map_or(address.as_str(), |(host, _)| host);
            let name = rustls::pki_types::ServerName::try_from(name.to_owned())
                .map_err(io::Error::other)?;
            Ok(Box::new(connector.connect(name, tcp(address).await?).await?))
        }
        Host::Ssh(target) => ssh(target),
    }
}

async fn tcp(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// What the docker command does: `ssh HOST docker system dial-stdio`, whose standard input and
/// output are a connection to the engine of the other side.
fn ssh(target: &str) -> io::Result<Box<dyn Stream>> {
    let (host, port) = match target.rsplit_once(':') {
        Some((host, port)) if port.parse::<u16>().is_ok() => (host, Some(port)),
        _ => (target, None),
    };
    let mut command = tokio::process::Command::new("ssh");
    command.args(["-o", "ConnectTimeout=30", "-T"]);
    if let Some(port) = port {
        command.args(["-p", port]);
    }
    command.args(["--", host, "docker", "system", "dial-stdio"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("ssh was started without pipes"));
    };
    // The process ends with its input; this waits for that, so that nothing of it is left.
    tokio::spawn(async move { child.wait().await });
    Ok(Box::new(tokio::io::join(output, Input(Some(input)))))
}

/// The standard input of a program, whose shutdown is its end.
struct Input(Option<ChildStdin>);

impl Input {
    fn with<T>(
        &mut self,
        work: impl FnOnce(Pin<&mut ChildStdin>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        match &mut self.0 {
            Some(input) => work(Pin::new(input)),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.with(|input| input.poll_write(context, bytes))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|input| input.poll_flush(context))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0 = None;
        Poll::Ready(Ok(()))
    }
}
