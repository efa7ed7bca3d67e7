//! `deployctl`: the command line of DeployKit, written on its public API alone.
//!
//! ```sh
//! cargo install --path . --example deployctl
//! deployctl --help
//! ```
#![allow(unreachable_pub, reason = "a program has no one outside to reach its items")]

#[path = "../shared/agent.rs"]
mod agent;
mod autostart;
mod change;
#[cfg(feature = "k8s")]
mod cluster;
mod compose;
mod exec;
mod file;
mod image;
mod look;
mod output;
mod secret;
mod terminal;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use deploykit::model::AppName;
use deploykit::{Deployer, ErrorKind, Result};

use output::Output;

/// Deploys and operates applications of several services.
#[derive(Parser)]
#[command(name = "deployctl", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(flatten)]
    backend: Backend,
    /// Write JSON for programs: one value, or one a line where there are several.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  tried and failed, or refused: another deployer is at work, a stale plan
  2  bad usage, a bad file, or something that the backend cannot honour: nothing was changed
  3  there are changes (plan --detailed-exitcode)
  exec ends with the exit code of its command; 128 + N where signal N has ended it.";

/// Where an app runs, and how it is come to.
#[derive(clap::Args)]
struct Backend {
    /// The backend [default: local://]
    #[arg(long, global = true, value_name = "URL")]
    on: Option<String>,
    /// A part of the model that the backend may leave out where it cannot honour it, or a key of
    /// Compose files (like services.*.container_name) that the model has nothing for; repeatable.
    #[arg(long, global = true, value_name = "FEATURE")]
    allow: Vec<compose::Omission>,
    /// How long to wait for another deployer of the same app to end.
    #[arg(long, global = true, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

impl Backend {
    async fn open(&self) -> Result<Deployer> {
        let url = self.on.as_deref().unwrap_or("local://");
        agent::ensure(url).map_err(|e| {
            deploykit::Error::new(deploykit::ErrorKind::Failed, "find the agent", e.to_string())
        })?;
        let deployer = deploykit::open(url).await?;
        let wait = Duration::from_secs(self.wait);
        Ok(deployer.with_lock_wait(wait).allow(self.features()))
    }
}

#[derive(Subcommand)]
enum Command {
    /// Show what `up` would do.
    Plan(change::PlanArguments),
    /// Make an app what its file says, or what a plan says.
    Up(change::UpArguments),
    /// Show what an app is and what runs of it; without APP, the apps.
    Status { app: Option<AppName> },
    /// Set the number of instances of a service.
    Scale(change::ScaleArguments),
    /// Replace every instance of a service by one alike, by its own update policy.
    Restart(change::RestartArguments),
    /// Make the whole app what it was in an earlier revision.
    Rollback(change::RollbackArguments),
    /// Show the revisions of an app.
    History { app: AppName },
    /// Show the output of instances.
    Logs(look::LogsArguments),
    /// Run a command beside an instance, with its environment.
    Exec(exec::ExecArguments),
    /// Run a job once more.
    Run(change::RunArguments),
    /// Set, list and remove the secrets of an app.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Remove an app; its volumes stay unless they are named to go too.
    Down(change::DownArguments),
    /// Check an app's file; with --on, also what that backend could not honour of it.
    Validate(compose::FileArguments),
    /// Print a Compose project with everything in its place; of an app's own file, the Compose
    /// file that loads to the same app.
    Config(compose::FileArguments),
    /// Write the objects of Kubernetes that an app would be, as YAML, without a cluster.
    #[cfg(feature = "k8s")]
    Render(compose::FileArguments),
    /// List the rights in the cluster that deploys need and this user does not have.
    #[cfg(feature = "k8s")]
    Doctor,
    /// Build, push, pull, list, promote, prune, sign, verify and inspect images.
    Image(image::ImageArguments),
    /// Write a systemd unit that brings the apps of a local backend back after a boot.
    Autostart(autostart::AutostartArguments),
}

fn main() -> ExitCode {
    // First of all: this program may have been started to be a supervisor.
    deploykit::init();
    let arguments = Arguments::parse();
    let output = Output { json: arguments.json };
    let ended = tokio::runtime::Runtime::new()
        .map_err(|e| file::failed("start", "the async runtime", e))
        .and_then(|runtime| runtime.block_on(run(&arguments, &output)));
    ended.unwrap_or_else(|error| {
        output.error(&error);
        match error.kind() {
            ErrorKind::Invalid | ErrorKind::Unsupported => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    })
}

async fn run(arguments: &Arguments, output: &Output) -> Result<ExitCode> {
    let backend = &arguments.backend;
    // A file that cannot be used is said before a backend is asked.
    match &arguments.command {
        Command::Validate(args) => args.validate(backend, output).await?,
        Command::Config(args) => args.config(output)?,
        Command::Plan(args) => return args.run(backend, output).await,
        Command::Up(args) => args.run(backend, output).await?,
        Command::Secret(command) => command.run(backend, output).await?,
        Command::Image(args) => args.run(output).await?,
        Command::Exec(args) => return args.run(&backend.open().await?).await,
        Command::Status { app } => look::status(&backend.open().await?, app, output).await?,
        Command::History { app } => look::history(&backend.open().await?, app, output).await?,
        Command::Logs(args) => args.run(&backend.open().await?, output).await?,
        Command::Scale(args) => args.run(&backend.open().await?, output).await?,
        Command::Restart(args) => args.run(&backend.open().await?, output).await?,
        Command::Rollback(args) => args.run(&backend.open().await?, output).await?,
        Command::Run(args) => args.run(&backend.open().await?, output).await?,
        Command::Down(args) => args.run(&backend.open().await?, output).await?,
        #[cfg(feature = "k8s")]
        Command::Render(args) => {
            cluster::render(backend, args.source(backend, output)?.app).await?
        }
        #[cfg(feature = "k8s")]
        Command::Doctor => return cluster::doctor(backend, output).await,
        Command::Autostart(args) => args.run(&backend.open().await?, output)?,
    }
    Ok(ExitCode::SUCCESS)
}
