//! The proxy alone in a process, for measurements: `bench-proxy http|tcp LISTEN BACKEND...`.

use std::net::SocketAddr;
use std::process::ExitCode;

use deploykit_agent::proxy::{BackendAddress, Mode, ServiceProxy};

type Failure = Box<dyn std::error::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-proxy: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mode = match arguments.next().as_deref() {
        Some("http") => Mode::Http,
        Some("tcp") => Mode::Tcp,
        _ => return Err("usage: bench-proxy http|tcp LISTEN BACKEND...".into()),
    };
    let listen: SocketAddr = arguments.next().ok_or("LISTEN is missing")?.parse()?;
    let mut backends = Vec::new();
    for (index, addr) in arguments.enumerate() {
        backends.push(BackendAddress::new(format!("origin-{index}"), addr.parse()?));
    }
    let proxy = ServiceProxy::bind(listen, mode)?;
    proxy.set_backends(backends);
    // Until killed.
    std::future::pending().await
}
