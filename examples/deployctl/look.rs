//! Commands that look and change nothing.

use deploykit::model::{AppName, ServiceName};
use deploykit::{
    Deployer, Error, ErrorKind, Instance, InstanceState, LogQuery, Outcome, Result, Revision,
    Status,
};
use futures_util::StreamExt;

use crate::output::{Output, age, table};

/// What an app is and what runs of it; without an app, the apps.
pub async fn status(deployer: &Deployer, app: &Option<AppName>, output: &Output) -> Result<()> {
    let Some(app) = app else {
        let mut all = Vec::new();
        for app in deployer.apps().await? {
            all.push(deployer.status(&app).await?);
        }
        let row = |status: &Status| {
            let instances = &status.observation.instances;
            let live = instances.iter().filter(|i| i.exit().is_none()).count();
            let ready = instances.iter().filter(|i| i.ready).count();
            [status.app.to_string(), newest(status), format!("{ready}/{live}")]
        };
        let rows = || table(["APP", "STATE", "READY"], all.iter().map(row).collect());
        return output.value(&all, rows);
    };
    let status = deployer.status(app).await?;
    let observation = &status.observation;
    if status.revision.is_none() && observation.is_empty() && observation.volumes.is_empty() {
        return Err(unknown(deployer, app));
    }
    output.value(&status, || describe(&status))
}

fn unknown(deployer: &Deployer, app: &AppName) -> Error {
    Error::new(ErrorKind::NotFound, "look at the app", "there is nothing of it")
        .on(deployer.backend().name())
        .with("app", app)
}

/// The public addresses of an app's services.
pub fn public(status: &Status) -> impl Iterator<Item = (&ServiceName, String)> {
    status.observation.endpoints.iter().flat_map(|(service, endpoint)| {
        let public = endpoint.ports.iter().filter_map(|port| port.public.as_ref());
        public.map(move |address| (service, address.to_string()))
    })
}

fn newest(status: &Status) -> String {
    let Some(revision) = &status.revision else { return "not deployed".into() };
    format!("revision {}, {}", revision.number, revision.outcome.word())
}

fn describe(status: &Status) -> String {
    let mut parts = vec![format!("{}: {}", status.app, newest(status))];
    if let Some(Revision { outcome: Outcome::Failed { message, diagnoses }, .. }) = &status.revision
    {
        parts.push(message.clone());
        parts.extend(diagnoses.iter().map(|diagnosis| format!("  - {diagnosis}")));
    }
    let observation = &status.observation;
    let headings = ["SERVICE", "INSTANCE", "STATE", "RESTARTS", "AGE", "HOST", "TROUBLE"];
    let instances = observation.instances.iter().map(|instance| {
        [
            instance.service.to_string(),
            instance.id.clone(),
            state(instance),
            instance.restarts.to_string(),
            instance.started_at.map(age).unwrap_or_default(),
            instance.host.clone(),
            instance.trouble.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]
    });
    parts.push(table(headings, instances.collect()));
    let endpoints = observation.endpoints.iter().flat_map(|(service, endpoint)| {
        endpoint.ports.iter().map(move |port| {
            let public = port.public.as_ref().map(ToString::to_string).unwrap_or_default();
            [service.to_string(), port.declared.to_string(), port.address.to_string(), public]
        })
    });
    parts.push(table(["SERVICE", "PORT", "ADDRESS", "PUBLIC"], endpoints.collect()));
    parts.retain(|part| !part.is_empty());
    if !observation.volumes.is_empty() {
        let names: Vec<&str> = observation.volumes.iter().map(AsRef::as_ref).collect();
        parts.push(format!("volumes: {}", names.join(", ")));
    }
    parts.join("\n")
}

fn state(instance: &Instance) -> String {
    match instance.state {
        InstanceState::Starting => "starting".into(),
        InstanceState::Running if instance.ready => "ready".into(),
        InstanceState::Running => "running".into(),
        InstanceState::BackOff => "waits to restart".into(),
        InstanceState::Stopping => "stopping".into(),
        InstanceState::Exited(exit) => exit.to_string(),
        _ => "unknown".into(),
    }
}

/// The revisions of an app, oldest first.
pub async fn history(deployer: &Deployer, app: &AppName, output: &Output) -> Result<()> {
    let revisions = deployer.history(app).await?;
    if revisions.is_empty() {
        return Err(unknown(deployer, app));
    }
    let row = |revision: &Revision| {
        [
            revision.number.to_string(),
            revision.outcome.word().to_owned(),
            age(revision.started_at),
            revision.cause.clone(),
            revision.by.clone(),
        ]
    };
    let headings = ["REVISION", "OUTCOME", "AGE", "CAUSE", "BY"];
    output.value(&revisions, || table(headings, revisions.iter().map(row).collect()))
}

#[derive(clap::Args)]
pub struct LogsArguments {
    app: AppName,
    /// Of this service or job alone.
    service: Option<ServiceName>,
    /// Of this instance alone.
    #[arg(long, value_name = "ID")]
    instance: Option<String>,
    /// At most this many of the last lines of each instance.
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// Go on with lines as they are written.
    #[arg(short, long)]
    follow: bool,
}

impl LogsArguments {
    pub async fn run(&self, deployer: &Deployer, output: &Output) -> Result<()> {
        let query = LogQuery {
            service: self.service.clone(),
            instance: self.instance.clone(),
            tail: self.tail,
            follow: self.follow,
        };
        let mut lines = deployer.logs(&self.app, &query).await?;
        while let Some(line) = lines.next().await {
            let line = line?;
            output.value(&line, || format!("{}  {}", line.instance, line.line))?;
        }
        Ok(())
    }
}
