//! The embedded default against what one would do by hand, HAProxy and supervisord:
//! `cargo bench -p deploykit-benches --bench local [-- FAMILY...]`.
//!
//! One line `RATIO name value <=|>= goal` for each figure, each against a baseline of the same
//! run; the other lines say what is behind it. A missed goal is no failure, a missing peer is.

mod bare;
mod chain;
mod fifty;
mod local;
mod proxy;

use std::process::ExitCode;

use deploykit_benches::Result;

/// How often a figure is taken; its median counts.
const ROUNDS: usize = 5;

fn main() -> ExitCode {
    deploykit::init();
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("local: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run() -> Result<()> {
    // Cargo itself says `--bench`.
    let families: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |family: &str| families.is_empty() || families.iter().any(|f| f == family);
    for family in &families {
        if !["fifty", "chain", "proxy"].contains(&family.as_str()) {
            return Err(format!("no family `{family}`: there are fifty, chain and proxy").into());
        }
    }
    if wanted("fifty") {
        fifty::run().await?;
    }
    if wanted("chain") {
        chain::run().await?;
    }
    if wanted("proxy") {
        proxy::run().await?;
    }
    Ok(())
}
