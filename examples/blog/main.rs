//! A blog of five services, a job, a volume, a secret and a config.

#![allow(unreachable_pub, reason = "a program has no one outside to reach its items")]

use clap::{Parser, Subcommand};

mod http;
mod services;

/// What a service or a step of the walkthrough ends with.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Service(services::Service),
}

#[tokio::main]
async fn main() -> Result<()> {
    match Arguments::parse().command {
        Some(Command::Service(service)) => service.run().await,
        None => Ok(()),
    }
}
