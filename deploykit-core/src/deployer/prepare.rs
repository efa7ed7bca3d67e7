//! Everything that needs looking up before a plan.

use std::collections::BTreeMap;

use futures_util::future::{join, join_all};

use super::Deployer;
use crate::diagnosis::{Diagnosis, Reason};
use crate::error::{Error, ErrorKind, Problem, Result};
use crate::event::Progress;
use crate::model::{
    App, AppName, ImageSpec, Mount, Publish, ResolvedImage, Route, SecretName, ServiceName,
};
use crate::orchestrator::EventSender;
use crate::resolved::ResolvedApp;

pub(super) async fn prepare(
    deployer: &Deployer,
    app: App,
    progress: &mut dyn Progress,
) -> Result<ResolvedApp> {
    let (events, mut reported) = EventSender::channel();
    let mut prepared = std::pin::pin!(resolve(deployer, app, events));
    loop {
        tokio::select! {
            biased;
            Some(event) = reported.recv() => progress.event(&event),
            prepared = &mut prepared => {
                while let Ok(event) = reported.try_recv() {
                    progress.event(&event);
                }
                return prepared;
            }
        }
    }
}

async fn resolve(deployer: &Deployer, app: App, events: EventSender) -> Result<ResolvedApp> {
    let operation = "prepare the app";
    let backend = &deployer.backend;
    let name = app.name.clone();
    let failed = |kind, problems: Vec<Problem>, diagnoses| {
        let message = format!("{} problems", problems.len());
        let message = if problems.len() == 1 { "1 problem".into() } else { message };
        Err(Error::new(kind, operation, message)
            .on(backend.name())
            .with("app", &name)
            .with_problems(problems)
            .with_diagnoses(diagnoses))
    };
    let mut diagnoses = Vec::new();
    let mut problems = app.problems();
    let mut unsupported = backend.capabilities().check(&app, backend.name(), &deployer.allowed);
    // The backend is never given what it would have to ignore.
    let app = backend.capabilities().without(app, &deployer.allowed);
    unsupported.extend(backend.refuses(&app));
    let mut kind = if problems.is_empty() && !unsupported.is_empty() {
        ErrorKind::Unsupported
    } else {
        ErrorKind::Invalid
    };
    problems.extend(unsupported);

    let mut images = BTreeMap::new();
    let mut secrets = BTreeMap::new();
    let mut restarts = BTreeMap::new();
    if problems.is_empty() {
        let workloads: Vec<_> = app.workloads().collect();
        // Many services may run one image: each is made ready once.
        let mut distinct: Vec<&ImageSpec> = Vec::new();
        for (_, workload) in &workloads {
            if !distinct.contains(&workload.image) {
                distinct.push(workload.image);
            }
        }
        let build = |image| make_ready(deployer, &app.name, image, &events);
        let built = join_all(distinct.iter().copied().map(build));
        let newest = async {
            match app.secrets.is_empty() {
                true => Ok(Vec::new()),
                false => backend.secrets().list(&app.name).await,
            }
        };
        let record = deployer.record(&app.name);
        let (built, (newest, last)) = join(built, join(newest, record.newest())).await;
        for (name, workload) in &workloads {
            let made = distinct.iter().zip(&built).find(|(image, _)| **image == workload.image);
            let Some((_, made)) = made else { continue };
            diagnoses.extend(made.as_ref().err().and_then(|e| e.diagnosis(name, workload.image)));
            match made {
                Ok(image) => {
                    images.insert((*name).clone(), image.clone());
                }
                Err(Unready::Wrong(error) | Unready::Refused(error)) => {
                    let folder = if app.jobs.contains_key(*name) { "jobs" } else { "services" };
                    let path = format!("{folder}.{name}.image");
                    problems.push(Problem::new(path, error.message(), ""));
                }
                Err(Unready::Failed(_)) => {}
            }
        }
        if !problems.is_empty() && !built.iter().any(|b| matches!(b, Err(Unready::Wrong(_)))) {
            kind = ErrorKind::Unauthorized;
        }
        for image in built {
            if let Err(Unready::Failed(error)) = image {
                return Err(error.with_diagnoses(diagnoses));
            }
        }
        let newest: BTreeMap<_, _> = newest?.into_iter().collect();
        // A restart that was asked for stays asked for.
        restarts = last?.map(|r| r.app.restarts).unwrap_or_default();
        restarts.retain(|service, _| app.services.contains_key(service));
        for (name, _) in workloads {
            for (secret, path) in secrets_of(&app, name) {
                if let Some(version) = newest.get(secret) {
                    secrets.insert(secret.clone(), *version);
                    continue;
                }
                kind = ErrorKind::Invalid;
                let reason = Reason::SecretMissing { secret: secret.to_string() };
                diagnoses.push(Diagnosis { service: name.clone(), instance: None, reason });
                problems.push(Problem::new(
                    path,
                    format!("the secret `{secret}` has no value on {}", backend.name()),
                    "set it first",
                ));
            }
        }
    }
    if !problems.is_empty() {
        return failed(kind, problems, diagnoses);
    }
    Ok(ResolvedApp { app, images, secrets, restarts })
}

/// The secrets of a service or job, each with the path of the field that names it.
fn secrets_of<'a>(app: &'a App, name: &ServiceName) -> Vec<(&'a SecretName, String)> {
    let folder = if app.jobs.contains_key(name) { "jobs" } else { "services" };
    let mounts = app.workload(name).map(|workload| workload.mounts).unwrap_or_default();
    let mounted = mounts.iter().enumerate().filter_map(|(index, mount)| match mount {
        Mount::Secret(mount) => {
            Some((&mount.name, format!("{folder}.{name}.mounts[{index}].secret")))
        }
        _ => None,
    });
    let ports = app.services.get(name).map(|service| service.ports.as_slice()).unwrap_or_default();
    let certificates = ports.iter().enumerate().filter_map(|(index, port)| match &port.publish {
        Publish::Route(Route { tls: Some(secret), .. }) => {
            Some((secret, format!("{folder}.{name}.ports[{index}].publish.route.tls")))
        }
        _ => None,
    });
    mounted.chain(certificates).collect()
}

/// Why an image is not ready.
enum Unready {
    /// The app names something that is not there or cannot be.
    Wrong(Error),
    /// The image policy does not let it through.
    Refused(Error),
    /// It could not be found out.
    Failed(Error),
}

impl Unready {
    /// What it means for a service or job of that image, where it is one of the known reasons.
    fn diagnosis(&self, service: &ServiceName, image: &ImageSpec) -> Option<Diagnosis> {
        let (Self::Wrong(error) | Self::Failed(error)) = self else { return None };
        let image = image.to_string();
        let reason = match error.kind() {
            ErrorKind::NotFound => Reason::ImageNotFound { image },
            ErrorKind::Unauthorized => {
                Reason::PullDenied { image, message: error.message().to_owned() }
            }
            _ => return None,
        };
        Some(Diagnosis { service: service.clone(), instance: None, reason })
    }
}

async fn make_ready(
    deployer: &Deployer,
    app: &AppName,
    image: &ImageSpec,
    events: &EventSender,
) -> Result<ResolvedImage, Unready> {
    let wrong = |e: &Error| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Invalid);
    let built = deployer.backend.images().build(app, image, events).await;
    let resolved =
        built.map_err(|e| if wrong(&e) { Unready::Wrong(e) } else { Unready::Failed(e) })?;
    if let Some(policy) = &deployer.image_policy {
        policy.check(app, image, &resolved).await.map_err(|e| match e.is_retryable() {
            true => Unready::Failed(e),
            false => Unready::Refused(e),
        })?;
    }
    Ok(resolved)
}
