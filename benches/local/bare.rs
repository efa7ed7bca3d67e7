//! What one would do by hand: spawn, and ask until it answers.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use deploykit_benches::{ProcessGuard, Result};

/// The service that is deployed, and started by hand.
pub(crate) const SERVICE: &str = env!("CARGO_BIN_EXE_bench-service");

/// How long a loop by hand waits before it asks again.
const PAUSE: Duration = Duration::from_millis(10);

/// What has not answered by then has failed, such as on a port that was taken meanwhile.
const DEADLINE: Duration = Duration::from_secs(30);

/// An address that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

/// Different addresses that nobody listens on.
pub(crate) fn free_addresses(n: usize) -> Result<Vec<SocketAddr>> {
    let listeners = (0..n).map(|_| TcpListener::bind("127.0.0.1:0"));
    let listeners = listeners.collect::<std::io::Result<Vec<_>>>()?;
    listeners.iter().map(|l| Ok(l.local_addr()?)).collect()
}

/// Starts one service by hand.
pub(crate) fn start(address: SocketAddr) -> Result<ProcessGuard> {
    ProcessGuard::spawn(Command::new(SERVICE).env("PORT", address.port().to_string()))
}

/// Asks each until all have answered 200.
pub(crate) fn poll(addresses: &[SocketAddr]) -> Result<()> {
    let start = Instant::now();
    let mut left = addresses.to_vec();
    loop {
        left.retain(|address| !is_ready(*address));
        if left.is_empty() {
            return Ok(());
        }
        if start.elapsed() > DEADLINE {
            return Err(format!("no answer from {left:?} after {DEADLINE:?}").into());
        }
        sleep(PAUSE);
    }
}

fn is_ready(address: SocketAddr) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n")?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}

/// Waits until something accepts connections there.
pub(crate) fn wait_for_listener(address: SocketAddr) -> Result<()> {
    for _ in 0..1000 {
        if TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        sleep(PAUSE);
    }
    Err(format!("nothing listens at {address} after 10 s").into())
}
