//! Balancing, registering and watching against what there is besides:
//! `cargo bench -p deploykit-benches --bench registry`.
//!
//! One line `RATIO name value <=|>= goal` for each figure, each against a baseline of the same
//! run; the other lines say what is behind it. A missed goal is no failure, a missing peer is.

mod memory;
mod pick;
mod register;
mod servers;
mod watch;

use std::process::ExitCode;

use deploykit_benches::Result;
use servers::Servers;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("registry: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<()> {
    pick::run().await?;
    let servers = Servers::start()?;
    register::run(&servers).await?;
    watch::run(&servers).await?;
    memory::run(&servers).await
}
