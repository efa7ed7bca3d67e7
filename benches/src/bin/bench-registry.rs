//! Follows the instances of the service `posts`, and prints how many bytes of memory each takes:
//! `bench-registry URL`. A process of its own, in which nothing else was done before.

use deploykit_benches::{Result, resident_mib};
use deploykit_registry::{Balancer, Policy};

#[tokio::main]
async fn main() -> Result<()> {
    let url = std::env::args().nth(1).ok_or("bench-registry URL")?;
    let registry = deploykit_registry::open(&url).await?;
    let before = resident_mib(std::process::id())?;
    let service = "posts".parse()?;
    let balancer = Balancer::watch(registry.as_ref(), &service, Policy::PowerOfTwo).await?;
    let count = balancer.snapshot().instances().count();
    let after = resident_mib(std::process::id())?;
    println!("{:.0}", (after - before) * 1024.0 * 1024.0 / count as f64);
    Ok(())
}
