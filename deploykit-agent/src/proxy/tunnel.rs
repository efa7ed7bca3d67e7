//! Bytes both ways between two connections.

use std::io;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};

use super::Shared;
use super::attempts::Attempts;
use super::backends::Reuse;
use super::buffer::{Buffer, LARGE, SMALL};

/// Gives a client's connection to a backend.
pub(crate) async fn serve(shared: &Shared, mut client: TcpStream) {
    shared.backends.count_request();
    match Attempts::new(shared).connect(Reuse::Never).await {
        Ok((backend, mut stream, _)) => {
            backend.succeeded();
            tunnel(&mut client, &mut stream).await;
        }
        Err(_) => shared.backends.count_failure(),
    }
}

/// Copies both ways until both have ended. The end of one way is passed on and leaves the other
/// open (half-close); an error ends both.
pub(crate) async fn tunnel(client: &mut TcpStream, backend: &mut TcpStream) {
    let (client_read, client_write) = client.split();
    let (backend_read, backend_write) = backend.split();
    let _ = tokio::try_join!(pump(client_read, backend_write), pump(backend_read, client_write));
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
    let mut buffer = Buffer::default();
    let mut size = SMALL;
    while buffer.fill(&mut from, size).await? > 0 {
        to.write_all(buffer.filled()).await?;
        // Memory for those connections only that fill it.
        if buffer.len() == size && size < LARGE {
            size = LARGE;
        }
        buffer.clear();
    }
    to.shutdown().await
}
