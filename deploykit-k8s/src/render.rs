//! What would be applied, as YAML, without a cluster.

use std::collections::BTreeMap;

use deploykit_core::model::{App, AppName, Mount, Signal, VolumeScope};
use deploykit_core::{ErrorKind, ResolvedApp, Result};

use crate::backend::capabilities;
use crate::config::K8sConfig;
use crate::error::{BACKEND, error};
use crate::images::Images;
use crate::objects::{self, Manifest, Part};
use crate::refuse;

const OPERATION: &str = "render the app";

/// The objects of an app as YAML documents, in the order in which they would be applied first.
///
/// Nothing of it depends on a cluster: of secrets the first version is named, and executables are
/// made into images of this machine's cache, which is not pushed.
///
/// # Errors
/// `Invalid`, or `Unsupported`, with every problem at once; those of a registry where an image is
/// named by a tag.
pub async fn render(config: &K8sConfig, app: App) -> Result<String> {
    app.validate()?;
    let mut problems = capabilities(config).check(&app, BACKEND, &Default::default());
    problems.extend(refuse::problems(&app));
    if !problems.is_empty() {
        return Err(error(ErrorKind::Unsupported, OPERATION, "it cannot be rendered")
            .with("app", &app.name)
            .with_problems(problems));
    }
    let images = Images::new(config.clone());
    let mut resolved = BTreeMap::new();
    let mut secrets = BTreeMap::new();
    for (name, workload) in app.workloads() {
        if workload.stop_signal != Signal::Term {
            let message = "`stop_signal` is put into the image when that is pushed, which a \
                           rendering does not; leave it out";
            return Err(error(ErrorKind::Unsupported, OPERATION, message).with("service", name));
        }
        resolved.insert(name.clone(), images.resolve(workload.image).await?);
        let mounted = workload.mounts.iter().filter_map(|mount| match mount {
            Mount::Secret(mount) => Some((mount.name.clone(), 1)),
            _ => None,
        });
        secrets.extend(mounted);
    }
    let target = ResolvedApp { app, images: resolved, secrets, restarts: BTreeMap::new() };
    render_resolved(config, &target)
}

/// Like [`render`], of an app whose every reference is fixed.
///
/// # Errors
/// `Invalid` where a user is named and not numbered.
pub fn render_resolved(config: &K8sConfig, target: &ResolvedApp) -> Result<String> {
    let mut documents = Vec::new();
    for manifest in manifests(config, target)? {
        let document = serde_saphyr::to_string(&manifest.value).map_err(|cause| {
            error(ErrorKind::Failed, OPERATION, "an object cannot be written").because(cause)
        })?;
        documents.push(document);
    }
    Ok(documents.join("---\n"))
}

fn manifests(config: &K8sConfig, target: &ResolvedApp) -> Result<Vec<Manifest>> {
    let app: &AppName = &target.app.name;
    let shared = target.app.volumes.iter().filter(|(_, v)| v.scope == VolumeScope::Shared);
    let claims = shared.map(|(name, _)| objects::claim(config, app, name));
    let mut all: Vec<Manifest> = objects::raw(&target.app).into_iter().chain(claims).collect();
    for name in target.app.jobs.keys() {
        let part = Part::new(config, target, name, 1)?;
        all.extend(objects::beneath(&part));
        all.push(match target.schedule(name) {
            Some(schedule) => objects::schedule(&part, &schedule)?,
            None => objects::job(&part, part.hash.short())?,
        });
    }
    for name in target.app.services.keys() {
        all.extend(objects::service(&Part::new(config, target, name, 1)?)?);
    }
    // A config that several mount is one object.
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|m| seen.insert((m.resource.kind.clone(), m.name.clone())));
    Ok(all)
}
