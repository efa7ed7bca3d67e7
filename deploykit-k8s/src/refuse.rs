//! What of an app Kubernetes cannot do, beyond parts that are missing as a whole: told in the plan.

use deploykit_core::Problem;
use deploykit_core::model::{
    App, ImageSpec, Mount, Replicas, Service, Signal, Strategy, VolumeScope, Workload,
};

use crate::objects::{numbers, raw_problems};

/// Every such problem.
pub(crate) fn problems(app: &App) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, workload) in app.workloads() {
        let folder = if app.jobs.contains_key(name) { "jobs" } else { "services" };
        of_workload(&format!("{folder}.{name}"), &workload, &mut problems);
    }
    for name in app.networks.keys() {
        let what = "Kubernetes has one network for all";
        let fix = "leave it out; `isolated` and `connects_to` say who reaches whom";
        problems.push(Problem::new(format!("networks.{name}"), what, fix));
    }
    problems.extend(raw_problems(app));
    for (name, service) in &app.services {
        of_service(app, &format!("services.{name}"), service, &mut problems);
    }
    problems
}

fn of_workload(path: &str, workload: &Workload<'_>, problems: &mut Vec<Problem>) {
    if let Some(user) = workload.user
        && numbers(user).is_none()
    {
        let what = format!("`{user}` is no user by number");
        problems.push(Problem::new(format!("{path}.user"), what, "write 1000 or 1000:1000"));
    }
    let ours = !matches!(workload.image, ImageSpec::Reference(_));
    if workload.stop_signal != Signal::Term && !ours {
        let what = "Kubernetes ends containers by the signal that their image names";
        let fix = "set STOPSIGNAL in the image and leave it out";
        problems.push(Problem::new(format!("{path}.stop_signal"), what, fix));
    }
}

fn of_service(app: &App, path: &str, service: &Service, problems: &mut Vec<Problem>) {
    let strategy = format!("{path}.update.strategy");
    let own = service.mounts.iter().any(|mount| {
        let Mount::Volume(mount) = mount else { return false };
        app.volumes.get(&mount.name).is_some_and(|v| v.scope == VolumeScope::PerReplica)
    });
    let global = service.replicas == Replicas::Global;
    match &service.update.strategy {
        Strategy::Recreate if own || global => {
            let what = "Kubernetes replaces instances of this kind one by one";
            let fix = "use `rolling` with surge 0 and unavailable 1";
            problems.push(Problem::new(strategy, what, fix));
        }
        Strategy::BlueGreen | Strategy::Canary(_) if own || global => {
            let what = "Kubernetes replaces instances of this kind one by one";
            problems.push(Problem::new(strategy, what, "use `rolling`"));
        }
        Strategy::BlueGreen if matches!(service.replicas, Replicas::Autoscale(_)) => {
            let what = "an autoscaler cannot be handed from one set of instances to another";
            problems.push(Problem::new(strategy, what, "use `rolling`, or fixed replicas"));
        }
        Strategy::Rolling(rolling) if own && rolling.surge > 0 => {
            let what = "an instance with a volume of its own is replaced by one that takes it over";
            let fix = "set surge 0 and unavailable 1";
            problems.push(Problem::new(format!("{strategy}.rolling.surge"), what, fix));
        }
        _ => {}
    }
    if matches!(service.replicas, Replicas::Autoscale(_)) && service.resources.cpu_request.is_none()
    {
        let what = "autoscaling goes by the share of the CPU that is requested, and none is";
        let at = format!("{path}.resources.cpu_request");
        problems.push(Problem::new(at, what, "set it, like 100m"));
    }
}
