//! Commands that change an app, and the one that says what would change.

use std::path::PathBuf;
use std::process::ExitCode;

use deploykit::model::{AppName, ServiceName};
use deploykit::{Change, Deployer, Error, ErrorKind, Plan, Result};

use crate::compose::{FileArguments, store_secrets};
use crate::file;
use crate::image::TrustArguments;
use crate::output::Output;
use crate::{Backend, look};

#[derive(clap::Args)]
pub struct PlanArguments {
    #[command(flatten)]
    file: FileArguments,
    /// Write the plan to this file, for `up --plan`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// End with exit code 3 where there is something to do.
    #[arg(long)]
    detailed_exitcode: bool,
    #[command(flatten)]
    trust: TrustArguments,
}

impl PlanArguments {
    pub async fn run(&self, backend: &Backend, output: &Output) -> Result<ExitCode> {
        let source = self.file.source(backend, output)?;
        let deployer = self.trust.apply(backend.open().await?)?;
        let plan = deploy(&deployer, source.app, output).await?;
        if let Some(path) = &self.out {
            file::write(path, &plan.to_json()?)?;
        }
        output.value(&plan, || plan.to_string())?;
        let changes = self.detailed_exitcode && !plan.is_empty();
        Ok(ExitCode::from(if changes { 3 } else { 0 }))
    }
}

#[derive(clap::Args)]
pub struct UpArguments {
    #[command(flatten)]
    file: FileArguments,
    #[command(flatten)]
    trust: TrustArguments,
    /// A plan that `plan --out` has written; with --file too, one of that file's app. Its images
    /// were verified when it was made, so --verify-key belongs there.
    #[arg(long, value_name = "FILE", conflicts_with = "verify_key")]
    plan: Option<PathBuf>,
}

impl UpArguments {
    pub async fn run(&self, backend: &Backend, output: &Output) -> Result<()> {
        let source = match self.plan.is_none() || self.file.is_stated() {
            true => Some(self.file.source(backend, output)?),
            false => None,
        };
        let plan = match &self.plan {
            Some(path) => {
                let plan = Plan::from_json(&file::text(path)?);
                Some(plan.map_err(|error| error.with("file", path.display()))?)
            }
            None => None,
        };
        if let (Some(source), Some(plan)) = (&source, &plan)
            && source.app.name != *plan.app()
        {
            let name = &source.app.name;
            let message = format!("the plan is of the app {}, the file of {name}", plan.app());
            return Err(Error::new(ErrorKind::Invalid, "read the plan", message));
        }
        let deployer = self.trust.apply(backend.open().await?)?;
        let plan = match (plan, source) {
            (Some(plan), _) => plan,
            (None, Some(source)) => {
                store_secrets(backend, &deployer, &source, output).await?;
                deploy(&deployer, source.app, output).await?
            }
            (None, None) => return Ok(()), // Without a plan there is a source.
        };
        apply(&deployer, plan, output).await
    }
}

#[derive(clap::Args)]
pub struct ScaleArguments {
    app: AppName,
    service: ServiceName,
    /// How many instances.
    replicas: u32,
}

impl ScaleArguments {
    pub async fn run(&self, deployer: &Deployer, output: &Output) -> Result<()> {
        let (app, service) = (self.app.clone(), self.service.clone());
        let change = Change::Scale { app, service, replicas: self.replicas };
        carry_out(deployer, change, output).await
    }
}

#[derive(clap::Args)]
pub struct RestartArguments {
    app: AppName,
    service: ServiceName,
}

impl RestartArguments {
    pub async fn run(&self, deployer: &Deployer, output: &Output) -> Result<()> {
        let change = Change::Restart { app: self.app.clone(), service: self.service.clone() };
        carry_out(deployer, change, output).await
    }
}

#[derive(clap::Args)]
pub struct RollbackArguments {
    app: AppName,
    /// The revision [default: the last one before the newest that succeeded]
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
}

impl RollbackArguments {
    pub async fn run(&self, deployer: &Deployer, output: &Output) -> Result<()> {
        let change = Change::Rollback { app: self.app.clone(), to: self.to };
        carry_out(deployer, change, output).await
    }
}

#[derive(clap::Args)]
pub struct RunArguments {
    app: AppName,
    job: ServiceName,
}

impl RunArguments {
    pub async fn run(&self, deployer: &Deployer, output: &Output) -> Result<()> {
        let change = Change::RunJob { app: self.app.clone(), job: self.job.clone() };
        carry_out(deployer, change, output).await
    }
}

#[derive(clap::Args)]
pub struct DownArguments {
    app: AppName,
    /// Remove its volumes too, with all their data.
    #[arg(long)]
    volumes: bool,
}

impl DownArguments {
    pub async fn run(&self, deployer: &Deployer, output: &Output) -> Result<()> {
        let change = Change::Remove { app: self.app.clone(), volumes: self.volumes };
        carry_out(deployer, change, output).await
    }
}

async fn deploy(deployer: &Deployer, app: deploykit::model::App, output: &Output) -> Result<Plan> {
    let prepared = deployer.prepare_with(app, &mut output.progress()).await?;
    deployer.plan(Change::Deploy(Box::new(prepared))).await
}

async fn carry_out(deployer: &Deployer, change: Change, output: &Output) -> Result<()> {
    let plan = deployer.plan(change).await?;
    apply(deployer, plan, output).await
}

async fn apply(deployer: &Deployer, plan: Plan, output: &Output) -> Result<()> {
    let app = plan.app().clone();
    if !output.json {
        output.line(&plan.to_string())?;
    }
    let applied = deployer.apply(plan, &mut output.progress()).await?;
    if output.json {
        return output.value(&applied, String::new);
    }
    for volume in &applied.kept_volumes {
        output.line(&format!("the volume {volume} is kept; `down --volumes` removes it"))?;
    }
    match applied.revision {
        None => output.line(&format!("{app} is removed")),
        Some(revision) => {
            let status = deployer.status(&app).await?;
            for (service, address) in look::public(&status) {
                output.line(&format!("{service}: {address}"))?;
            }
            output.line(&format!("{app} is at revision {revision}"))
        }
    }
}
