//! Connections between an engine and somebody else, which can be broken.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::watch;

/// Stands before an engine's socket.
pub struct Socket {
    pub path: PathBuf,
    cuts: watch::Sender<u64>,
}

impl Socket {
    /// Listens at `path`, and passes on to `to`.
    pub fn before(to: &Path, path: PathBuf) -> Self {
        let listener = UnixListener::bind(&path).unwrap();
        let (cuts, cut) = watch::channel(0);
        let to = to.to_owned();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, mut cut) = (to.clone(), cut.clone());
                cut.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(server) = UnixStream::connect(&to).await else { return };
                    let (mut client, mut server) = (client, server);
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { path, cuts }
    }

    /// Breaks all connections that there are.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

/// Stands before a registry.
pub struct Pulls {
    pub address: SocketAddr,
    /// How many bytes of each connection get through.
    limit: Arc<AtomicU64>,
}

impl Pulls {
    /// Passes on to the registry at `to`, `limit` bytes of each connection.
    pub async fn before(to: String, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limit = Arc::new(AtomicU64::new(limit));
        let limited = Arc::clone(&limit);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (to, limit) = (to.clone(), Arc::clone(&limited));
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(&to).await else { return };
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    tokio::select! {
                        () = pass(from_client, to_server, u64::MAX) => {}
                        () = pass(from_server, to_client, limit.load(Ordering::SeqCst)) => {}
                    }
                });
            }
        });
        Self { address, limit }
    }

    /// Lets everything through from now on.
    pub fn heal(&self) {
        self.limit.store(u64::MAX, Ordering::SeqCst);
    }
}

async fn pass(from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, limit: u64) {
    let _ = tokio::io::copy(&mut from.take(limit), &mut to).await;
    let _ = to.shutdown().await;
}
