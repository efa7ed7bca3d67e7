//! A blog of five services, a job, a volume, a secret and a config: deployed, scaled, updated
//! under load, broken, rolled back and removed.
//!
//! With a registry of services (`DEPLOYKIT_REGISTRY`, see `registry.rs`) they find each other there, and
//! three stores share the data.
//!
//! Without a command this program walks through all of that; with one, it is the service of that
//! name.
#![allow(unreachable_pub, reason = "a program has no one outside to reach its items")]

#[path = "../shared/agent.rs"]
mod agent;
mod app;
mod deploy;
mod http;
mod registry;
mod services;
mod walkthrough;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What a service or a step of the walkthrough ends with.
pub type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// Deploys a blog of five services and walks through its life in twelve steps: one line each on
/// standard output, their progress on standard error.
///
/// Where DEPLOYKIT_REGISTRY names a registry (etcd://host,host/blog with the feature etcd,
/// zk://host,host/blog with zookeeper), the services find each other there, three stores share the
/// data, and one more step kills one of them.
///
/// Exit codes: 0 when every step has passed, 1 when one has failed, 2 when the walkthrough could
/// not begin.
#[derive(Parser)]
#[command(name = "blog", args_conflicts_with_subcommands = true)]
struct Arguments {
    /// Leave the blog running after step 11, and say how to look at it and how to remove it.
    #[arg(long)]
    keep: bool,
    /// Where to deploy it [default: processes of this machine, in a new folder]
    #[arg(long, value_name = "URL")]
    on: Option<String>,
    /// The registry that images are pushed to, where the backend pulls them from one
    /// [default: DEPLOYKIT_TEST_REGISTRY]
    #[arg(long, value_name = "HOST:PORT")]
    registry: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Service(services::Service),
    /// Deploys one release and prints the events of that as lines of JSON.
    #[command(hide = true)]
    Deploy {
        #[arg(long)]
        on: String,
        #[command(flatten)]
        release: app::Release,
    },
}

fn main() -> ExitCode {
    // First of all: this program may have been started to be the supervisor of its own services.
    deploykit::init();
    let arguments = Arguments::parse();
    let ended = tokio::runtime::Runtime::new()
        .map_err(Into::into)
        .and_then(|runtime| runtime.block_on(run(arguments)));
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("blog: {error}");
            ExitCode::from(2)
        }
    }
}

/// Whether all went well.
async fn run(arguments: Arguments) -> Result<bool> {
    match arguments.command {
        Some(Command::Service(service)) => service.run().await.map(|()| true),
        Some(Command::Deploy { on, release }) => deploy::run(&on, &release).await.map(|()| true),
        None => {
            let url = arguments.on.unwrap_or_else(own_folder);
            let url = with_registry(url, arguments.registry);
            agent::ensure(&url)?;
            tokio::select! {
                passed = walkthrough::run(url.clone(), arguments.keep) => passed,
                _ = tokio::signal::ctrl_c() => interrupted(&url, arguments.keep).await,
            }
        }
    }
}

/// Leaves nothing behind, unless that is what the caller wants.
async fn interrupted(url: &str, keep: bool) -> Result<bool> {
    if keep {
        eprintln!("interrupted: the blog is left on {url} as it is");
        return Ok(false);
    }
    eprintln!("interrupted: removing the blog from {url}; interrupt again to leave it there");
    tokio::select! {
        cleaned = walkthrough::clean_up(url) => cleaned.map(|()| false),
        _ = tokio::signal::ctrl_c() => Ok(false),
    }
}

/// The URL of a cluster with the registry that its nodes pull from, where it names none.
fn with_registry(url: String, registry: Option<String>) -> String {
    let registry = registry.or_else(|| std::env::var("DEPLOYKIT_TEST_REGISTRY").ok());
    match registry {
        Some(registry) if url.starts_with("k8s:") && !url.contains("registry=") => {
            let joint = if url.contains('?') { '&' } else { '?' };
            format!("{url}{joint}registry={registry}")
        }
        _ => url,
    }
}

/// A folder that no other run of this program uses.
fn own_folder() -> String {
    let folder = std::env::temp_dir().join(format!("deploykit-blog-{}", std::process::id()));
    format!("local://{}", folder.display())
}
