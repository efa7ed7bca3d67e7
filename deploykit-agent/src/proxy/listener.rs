//! Takes connections and owns the tasks that serve them.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::head::Peer;
use super::{Mode, Shared, http1, tunnel};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// How often idle connections to backends are looked at.
const SWEEP: Duration = Duration::from_secs(5);
/// The pause when no connection can be accepted, usually for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restarted proxy must not wait for connections of the one before to time out.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Serves until the proxy closes and the last connection has ended.
pub(crate) async fn serve(listener: TcpListener, mode: Mode, shared: Arc<Shared>) {
    // Dropping the set ends its connections: they live as long as this task.
    let mut connections = JoinSet::new();
    let mut sweep = tokio::time::interval(SWEEP);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    connections.spawn(connection(stream, client, mode, shared.clone()));
                }
                Err(error) => {
                    tracing::warn!(address = %shared.address, %error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            _ = sweep.tick() => shared.backends.sweep_idle(),
            () = shared.closing.cancelled() => break,
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, client: SocketAddr, mode: Mode, shared: Arc<Shared>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    match mode {
        Mode::Http => {
            http1::serve(&shared, stream, Peer { client, listener: shared.address }).await
        }
        Mode::Tcp => tunnel::serve(&shared, stream).await,
    }
}
