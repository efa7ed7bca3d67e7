//! A connection that is accepted.

use std::net::SocketAddr;

use tokio::net::TcpStream;

pub(super) async fn ask(addr: SocketAddr) -> Result<String, String> {
    match TcpStream::connect(addr).await {
        Ok(_) => Ok("connected".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
