//! A service whose instances register themselves, and a caller who finds them and takes turns.
//!
//! Here all of it is one process with the registry in memory; with another [`ServiceRegistry`] the
//! same code runs across machines.

use std::time::Duration;

use deploykit::model::{Address, ServiceName};
use deploykit::{Error, ErrorKind, Registered, Registration, Result, ServiceRegistry, memory};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main]
async fn main() -> Result<()> {
    let registry = memory::Registry::default();
    let posts = ServiceName::new("posts")?;
    let mut running = Vec::new();
    for id in ["posts-1", "posts-2", "posts-3"] {
        running.push(serve(&registry, &posts, id).await?);
    }
    call_in_turns(&registry, &posts, 6).await?;

    println!("one of them leaves");
    if let Some(registration) = running.pop() {
        registration.deregister().await?;
    }
    call_in_turns(&registry, &posts, 4).await
}

/// An instance: it listens, registers, and greets whoever connects.
async fn serve(
    registry: &impl ServiceRegistry,
    service: &ServiceName,
    id: &'static str,
) -> Result<Box<dyn Registration>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let at = listener.local_addr().map_err(failed)?;
    tokio::spawn(async move {
        while let Ok((mut caller, _)) = listener.accept().await {
            let _ = caller.write_all(format!("{id} greets you").as_bytes()).await;
        }
    });
    let address = Address { host: at.ip().to_string(), port: at.port() };
    registry.register(Registered::new(service.clone(), id, address), Duration::from_secs(10)).await
}

/// A caller: it asks who there is and takes the next one each time.
async fn call_in_turns(
    registry: &impl ServiceRegistry,
    service: &ServiceName,
    calls: usize,
) -> Result<()> {
    let instances = registry.instances(service).await?;
    for next in instances.iter().cycle().take(calls) {
        let mut stream = TcpStream::connect(next.address.to_string()).await.map_err(failed)?;
        let mut greeting = String::new();
        stream.read_to_string(&mut greeting).await.map_err(failed)?;
        println!("{greeting}");
    }
    Ok(())
}

fn failed(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Failed, "speak over TCP", error.to_string())
}
