//! From a change to a plan: compares what shall be with what is.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::try_join;

use super::Deployer;
use super::order::by_dependency;
use crate::capability::Capabilities;
use crate::error::{Error, ErrorKind, Result};
use crate::hash::{SpecHash, sha256_hex};
use crate::model::{AppName, Condition, Replicas, ServiceName};
use crate::observation::{Instance, Observation};
use crate::orchestrator::Drift;
use crate::plan::{Change, Goal, Intent, Plan, Step};
use crate::resolved::{ResolvedApp, Template};
use crate::revision::{Outcome, Revision};

/// How much of a hash names the run of a job.
const RUN: usize = 8;

/// What a plan is made from.
struct Goals<'a> {
    target: &'a ResolvedApp,
    /// What the app was when its instances were last changed, for telling why they change.
    before: Option<&'a ResolvedApp>,
    seen: &'a Observation,
    /// The runs of jobs that are to be done.
    runs: BTreeMap<ServiceName, (String, String)>,
    /// What else differs, as the backend tells it.
    drift: Drift,
}

pub(super) async fn plan(deployer: &Deployer, change: Change) -> Result<Plan> {
    let app = match &change {
        Change::Deploy(target) => target.app.name.clone(),
        Change::Scale { app, .. }
        | Change::Restart { app, .. }
        | Change::Rollback { app, .. }
        | Change::RunJob { app, .. }
        | Change::Remove { app, .. } => app.clone(),
    };
    let record = deployer.record(&app);
    let (newest, seen) = try_join(record.newest(), deployer.backend.observe(&app)).await?;
    let (cause, target, jobs) = match change {
        Change::Deploy(target) => ("deploy".to_owned(), *target, Jobs::Due),
        Change::Scale { service, replicas, .. } => {
            let mut target = current(deployer, &app, newest.as_ref())?;
            let scaled = target.app.services.get_mut(&service);
            scaled.ok_or_else(|| unknown(deployer, "service", &service))?.replicas =
                Replicas::Fixed(replicas);
            check(deployer, &target)?;
            (format!("scale {service} to {replicas}"), target, Jobs::None)
        }
        Change::Restart { service, .. } => {
            let mut target = current(deployer, &app, newest.as_ref())?;
            if !target.app.services.contains_key(&service) {
                return Err(unknown(deployer, "service", &service));
            }
            *target.restarts.entry(service.clone()).or_default() += 1;
            (format!("restart {service}"), target, Jobs::None)
        }
        Change::Rollback { to, .. } => {
            let revision = earlier(deployer, &app, newest.as_ref(), to).await?;
            (format!("rollback to {}", revision.number), revision.app, Jobs::None)
        }
        Change::RunJob { job, .. } => {
            let target = current(deployer, &app, newest.as_ref())?;
            if !target.app.jobs.contains_key(&job) {
                return Err(unknown(deployer, "job", &job));
            }
            (format!("run {job}"), target, Jobs::Once(job))
        }
        Change::Remove { volumes, .. } => {
            return removal(deployer, app, newest.as_ref(), &seen, volumes).await;
        }
    };
    let mut runs = BTreeMap::new();
    for job in target.app.jobs.keys() {
        let Some(template) = target.template(job) else { continue };
        let run = SpecHash::of(&template).short()[..RUN].to_owned();
        match &jobs {
            Jobs::Due if target.app.jobs[job].schedule.is_some() => {}
            Jobs::Due if record.has_run(job, &run).await? => {}
            Jobs::Due => {
                let cause = if seen.of(job).next().is_none() { "new" } else { "has not succeeded" };
                runs.insert(job.clone(), (run, cause.to_owned()));
            }
            Jobs::Once(asked) if asked == job => {
                let after = newest.as_ref().map_or(0, |r| r.number);
                runs.insert(job.clone(), (format!("{run}x{after}"), "asked for".to_owned()));
            }
            Jobs::Once(_) | Jobs::None => {}
        }
    }
    let before = newest.as_ref().map(|r| &r.app);
    let drift = Drift::default();
    let mut goals = Goals { target: &target, before, seen: &seen, runs, drift };
    let mut steps = goals.steps();
    let due: BTreeSet<&ServiceName> = steps
        .iter()
        .filter_map(|step| match &step.goal {
            Goal::Service(name) => Some(name),
            _ => None,
        })
        .collect();
    let others = target.app.services.keys().filter(|name| !due.contains(name));
    let others: Vec<ServiceName> = others.cloned().collect();
    if !others.is_empty() || !target.app.raw.is_empty() {
        goals.drift = deployer.backend.drift(&target, &others).await?;
    }
    if goals.drift != Drift::default() {
        steps = goals.steps();
    }
    let recorded =
        newest.as_ref().is_some_and(|r| r.outcome == Outcome::Succeeded && r.app == target);
    Ok(Plan {
        backend: deployer.backend.identity(),
        cause,
        steps,
        base: newest.as_ref().map(|r| r.number),
        fingerprint: fingerprint(&seen, deployer.backend.capabilities()),
        recorded,
        intent: Intent::Become(Box::new(target)),
        app,
    })
}

/// The steps that bring an app back to `target` after a failure: its jobs do not run again.
pub(super) fn steps_back(
    target: &ResolvedApp,
    before: &ResolvedApp,
    seen: &Observation,
) -> Vec<Step> {
    let (runs, drift) = (BTreeMap::new(), Drift::default());
    Goals { target, before: Some(before), seen, runs, drift }.steps()
}

enum Jobs {
    /// Those that have not run.
    Due,
    /// This one, even if it has.
    Once(ServiceName),
    None,
}

fn unknown(deployer: &Deployer, what: &str, name: &ServiceName) -> Error {
    Error::new(ErrorKind::NotFound, "plan the change", format!("the app has no {what} `{name}`"))
        .on(deployer.backend.name())
}

fn check(deployer: &Deployer, target: &ResolvedApp) -> Result<()> {
    let backend = &deployer.backend;
    let mut problems = target.app.problems();
    problems.extend(backend.capabilities().check(&target.app, backend.name(), &deployer.allowed));
    problems.extend(backend.refuses(&target.app));
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::invalid("plan the change", problems)
        .on(backend.name())
        .with("app", &target.app.name))
}

/// What the app is now, for changes that start from that.
fn current(deployer: &Deployer, app: &AppName, newest: Option<&Revision>) -> Result<ResolvedApp> {
    let refuse = |kind, message: String| {
        Error::new(kind, "plan the change", message).on(deployer.backend.name()).with("app", app)
    };
    let newest = newest.ok_or_else(|| {
        refuse(ErrorKind::NotFound, "no such app is deployed; deploy it first".into())
    })?;
    if newest.outcome == Outcome::Succeeded {
        return Ok(newest.app.clone());
    }
    let message = format!(
        "its newest revision {} is {}; deploy again or roll back first",
        newest.number,
        newest.outcome.word()
    );
    Err(refuse(ErrorKind::Conflict, message))
}

async fn earlier(
    deployer: &Deployer,
    app: &AppName,
    newest: Option<&Revision>,
    to: Option<u64>,
) -> Result<Revision> {
    let record = deployer.record(app);
    let missing = |message: String| {
        Error::new(ErrorKind::NotFound, "plan the rollback", message)
            .on(deployer.backend.name())
            .with("app", app)
    };
    if let Some(number) = to {
        let found = record.revision(number).await?;
        let kept = record.numbers().await?;
        return found.ok_or_else(|| {
            let kept: Vec<String> = kept.iter().map(u64::to_string).collect();
            missing(format!("there is no revision {number}; kept are {}", kept.join(", ")))
        });
    }
    let newest = newest.ok_or_else(|| missing("no such app is deployed".into()))?;
    let good = record.all().await?.into_iter().rev();
    let mut good = good.filter(|r| r.outcome == Outcome::Succeeded && r.number < newest.number);
    good.find(|r| r.app != newest.app)
        .ok_or_else(|| missing("no earlier revision that succeeded is kept".into()))
}

impl Goals<'_> {
    fn steps(&self) -> Vec<Step> {
        let app = &self.target.app;
        let mut steps = Vec::new();
        let mut places = BTreeMap::new();
        for name in app.networks.keys().filter(|n| !self.seen.networks.contains(*n)) {
            steps.push(step(Goal::Network(name.clone()), vec!["new".into()]));
        }
        for name in app.volumes.keys().filter(|n| !self.seen.volumes.contains(*n)) {
            steps.push(step(Goal::Volume(name.clone()), vec!["new".into()]));
        }
        let raw = self.raw_causes();
        if !raw.is_empty() {
            steps.push(step(Goal::Raw, raw));
        }
        let ground: Vec<(usize, Condition)> =
            (0..steps.len()).map(|place| (place, Condition::Completed)).collect();

        for name in by_dependency(app) {
            let mut goals = Vec::new();
            if app.jobs.contains_key(&name) {
                goals.push((Goal::Schedule(name.clone()), self.schedule_causes(&name)));
            }
            if let Some((run, cause)) = self.runs.get(&name) {
                let goal = Goal::Job { job: name.clone(), run: run.clone() };
                goals.push((goal, vec![cause.clone()]));
            }
            if app.services.contains_key(&name) {
                goals.push((Goal::Service(name.clone()), self.service_causes(&name)));
            }
            for (goal, causes) in goals.into_iter().filter(|(_, causes)| !causes.is_empty()) {
                let mut after = ground.clone();
                let workload = app.workload(&name);
                let dependencies = workload.iter().flat_map(|w| w.depends_on);
                after.extend(dependencies.filter_map(|(d, c)| Some((*places.get(d)?, *c))));
                // Others wait for the run, where there is one.
                places.insert(name.clone(), steps.len());
                steps.push(Step { goal, after, causes });
            }
        }

        let all = |steps: &Vec<Step>| -> Vec<(usize, Condition)> {
            (0..steps.len()).map(|place| (place, Condition::Completed)).collect()
        };
        let before_removal = all(&steps);
        for name in self.seen.services().into_iter().filter(|n| app.workload(n).is_none()) {
            steps.push(Step {
                goal: Goal::RemoveService(name.clone()),
                after: before_removal.clone(),
                causes: vec!["no longer in the app".into()],
            });
        }
        let before_networks = all(&steps);
        for name in self.seen.networks.iter().filter(|n| !app.networks.contains_key(*n)) {
            steps.push(Step {
                goal: Goal::RemoveNetwork(name.clone()),
                after: before_networks.clone(),
                causes: vec!["no longer in the app".into()],
            });
        }
        if !steps.is_empty() {
            let after = all(&steps);
            steps.push(Step { goal: Goal::Collect, after, causes: Vec::new() });
        }
        steps
    }

    /// Why the raw objects have to be worked on; empty where they are as they shall be.
    fn raw_causes(&self) -> Vec<String> {
        // Those of other backends are refused, or left out.
        let objects = |app: &ResolvedApp| -> BTreeMap<String, SpecHash> {
            let objects = app.app.raw.values().flatten();
            objects.map(|(name, object)| (name.to_string(), SpecHash::of_raw(object))).collect()
        };
        let (wanted, there) = (objects(self.target), &self.seen.raw);
        let before = self.before.map(objects).unwrap_or_default();
        if there.is_empty() && before.is_empty() && !wanted.is_empty() {
            return vec!["new".into()];
        }
        let names: BTreeSet<&String> = wanted.keys().chain(there.keys()).collect();
        let cause = |name: &String| match (wanted.get(name), there.get(name)) {
            (wanted, there) if wanted == there => None,
            (Some(wanted), there) if before.get(name) == Some(wanted) => Some(match there {
                Some(_) => format!("drift: {name} is another"),
                None => format!("drift: {name} is missing"),
            }),
            (Some(_), Some(_)) => Some(format!("{name} changed")),
            (Some(_), None) => Some(format!("{name} added")),
            (None, _) => Some(format!("{name} no longer in the app")),
        };
        let causes: Vec<String> = names.into_iter().filter_map(cause).collect();
        if causes.is_empty() { self.drift.raw.clone() } else { causes }
    }

    /// Why the schedule of a job has to be worked on; empty where it is as it shall be.
    fn schedule_causes(&self, job: &ServiceName) -> Vec<String> {
        let before = self.before.and_then(|b| b.schedule(job));
        match (self.target.schedule(job), self.seen.schedules.get(job)) {
            (None, None) => Vec::new(),
            (None, Some(_)) => vec!["no schedule any more".into()],
            (Some(_), None) if before.is_none() => vec!["new".into()],
            (Some(_), None) => vec!["drift: it is not scheduled".into()],
            (Some(spec), Some(there)) if *there == SpecHash::of_schedule(&spec) => Vec::new(),
            (Some(spec), Some(_)) => {
                let Some(before) = before else { return vec!["changed".into()] };
                let mut causes = differences(&before.template, &spec.template);
                if before.schedule != spec.schedule {
                    causes.push(format!("schedule {} -> {}", before.schedule, spec.schedule));
                }
                if (before.retries, before.timeout) != (spec.retries, spec.timeout) {
                    causes.push("retries or time limit changed".into());
                }
                if causes.is_empty() {
                    causes.push("drift: it is scheduled otherwise".into());
                }
                causes
            }
        }
    }

    /// Why a service has to be worked on; empty where it is as it shall be.
    fn service_causes(&self, name: &ServiceName) -> Vec<String> {
        let mut causes = Vec::new();
        let (Some(service), Some(template)) =
            (self.target.app.services.get(name), self.target.template(name))
        else {
            return causes;
        };
        let before = self.before.filter(|b| b.app.services.contains_key(name));
        let instances: Vec<&Instance> = self.seen.of(name).collect();
        let endpoint = self.seen.endpoints.get(name);
        if instances.is_empty() && endpoint.is_none() && before.is_none() {
            return vec!["new".into()];
        }
        let (new, old): (Vec<&Instance>, Vec<&Instance>) =
            instances.into_iter().partition(|i| i.hash.matches(&template));
        let controller = self.seen.controllers.get(name);
        let makes_others = controller.is_some_and(|hash| !hash.matches(&template));
        if !old.is_empty() || makes_others {
            let known = before.and_then(|b| b.template(name));
            let differences = known.map(|b| differences(&b, &template)).unwrap_or_default();
            if differences.is_empty() {
                causes.push(match old.len() {
                    0 => "drift: new instances would be of another revision".into(),
                    count => format!("drift: {count} of another revision"),
                });
            }
            causes.extend(differences);
        }
        let wanted = match service.replicas {
            Replicas::Fixed(n) => Some(n),
            // How many there are is the backend's to say.
            Replicas::Global | Replicas::Autoscale(_) => None,
        };
        let live = new.iter().filter(|i| i.exit().is_none()).count();
        let ready = new.iter().filter(|i| i.ready).count();
        let scaled = before
            .and_then(|b| b.app.services.get(name))
            .filter(|b| b.replicas != service.replicas)
            .map(|b| format!("replicas {} -> {}", b.replicas, service.replicas));
        let miscounted = wanted.is_some_and(|w| live as u32 != w) || live < new.len();
        match (scaled, miscounted) {
            (Some(scaled), _) => causes.push(scaled),
            (None, true) if old.is_empty() => {
                let wanted = wanted.map_or_else(|| "some".to_owned(), |w| w.to_string());
                causes.push(format!("drift: {live} of {wanted} running"));
            }
            (None, false) if old.is_empty() && ready < live => {
                causes.push(format!("not ready: {ready} of {live}"));
            }
            _ => {}
        }
        match (self.target.endpoint(name), endpoint) {
            (Some(_), Some(there)) if there.hash.as_str().is_empty() => {
                causes.push("its endpoint is to be made anew".into());
            }
            (Some(spec), Some(there)) if there.hash != SpecHash::of_endpoint(&spec) => {
                causes.push("ports changed".into());
            }
            (Some(_), None) => causes.push("drift: its endpoint is missing".into()),
            (None, Some(_)) => causes.push("ports changed".into()),
            (Some(_), Some(there)) if causes.is_empty() => {
                let routed = new.iter().filter(|i| there.routed.contains(&i.id)).count();
                if routed < live {
                    causes.push(format!("drift: {routed} of {live} take requests"));
                }
            }
            _ => {}
        }
        if causes.is_empty() {
            causes.extend(self.drift.services.get(name).into_iter().flatten().cloned());
        }
        causes
    }
}

fn step(goal: Goal, causes: Vec<String>) -> Step {
    Step { goal, after: Vec::new(), causes }
}

/// What differs between two templates, in words.
fn differences(before: &Template, after: &Template) -> Vec<String> {
    let mut words = Vec::new();
    if before.image.digest != after.image.digest {
        words.push(format!("image {} -> {}", before.image, after.image));
    }
    let named = |what: &str, before: Vec<(String, String)>, after: Vec<(String, String)>| {
        let before: BTreeMap<_, _> = before.into_iter().collect();
        let after: BTreeMap<_, _> = after.into_iter().collect();
        let names: BTreeSet<_> = before.keys().chain(after.keys()).cloned().collect();
        let changed = names.into_iter().filter(|n| before.get(n) != after.get(n));
        changed.map(|name| format!("{what} {name} changed")).collect::<Vec<_>>()
    };
    let pairs = |map: &BTreeMap<String, String>| map.clone().into_iter().collect::<Vec<_>>();
    words.extend(named("env", pairs(&before.env), pairs(&after.env)));
    for (secret, version) in &after.secrets {
        match before.secrets.get(secret) {
            Some(old) if old == version => {}
            Some(old) => words.push(format!("secret {secret} rotated {old} -> {version}")),
            None => words.push(format!("secret {secret} added")),
        }
    }
    let texts = |t: &Template| {
        t.configs.iter().map(|(n, c)| (n.to_string(), c.clone())).collect::<Vec<_>>()
    };
    words.extend(named("config", texts(before), texts(after)));
    if after.restarted != before.restarted {
        words.push("restart asked for".into());
    }
    let fields = |t: &Template| {
        let value = serde_json::to_value(t).unwrap_or_default();
        let fields = value.as_object().cloned().unwrap_or_default().into_iter();
        let said = ["image", "env", "secrets", "configs", "restarted"];
        let publish_aside = |mut value: serde_json::Value| {
            for port in value.as_array_mut().into_iter().flatten() {
                port.as_object_mut().map(|port| port.remove("publish"));
            }
            value.to_string()
        };
        fields
            .filter(|(name, _)| !said.contains(&name.as_str()))
            .map(|(name, value)| {
                let text = if name == "ports" { publish_aside(value) } else { value.to_string() };
                (name, text)
            })
            .collect::<Vec<_>>()
    };
    words.extend(named("field", fields(before), fields(after)));
    words
}

async fn removal(
    deployer: &Deployer,
    app: AppName,
    newest: Option<&Revision>,
    seen: &Observation,
    volumes: bool,
) -> Result<Plan> {
    let mut names: BTreeSet<ServiceName> = seen.services().into_iter().cloned().collect();
    // Who depends on others goes before them.
    let order = newest.map(|r| by_dependency(&r.app.app)).unwrap_or_default();
    let mut sorted: Vec<ServiceName> = order.into_iter().filter(|n| names.remove(n)).collect();
    sorted.extend(names);
    sorted.reverse();
    let mut steps: Vec<Step> = Vec::new();
    let mut places: BTreeMap<ServiceName, usize> = BTreeMap::new();
    for name in sorted {
        let users = |n: &ServiceName| {
            newest
                .and_then(|r| r.app.app.workload(n))
                .is_some_and(|w| w.depends_on.contains_key(&name))
        };
        let after =
            places.iter().filter(|(n, _)| users(n)).map(|(_, p)| (*p, Condition::Completed));
        let after = after.collect();
        places.insert(name.clone(), steps.len());
        steps.push(Step { goal: Goal::RemoveService(name), after, causes: Vec::new() });
    }
    let services: Vec<_> = (0..steps.len()).map(|p| (p, Condition::Completed)).collect();
    let rest = seen.networks.iter().cloned().map(Goal::RemoveNetwork);
    let data = seen.volumes.iter().filter(|_| volumes).cloned().map(Goal::RemoveVolume);
    for goal in rest.chain(data) {
        steps.push(Step { goal, after: services.clone(), causes: Vec::new() });
    }
    // They may have been put for an app that was never deployed.
    let secrets = deployer.backend.secrets().list(&app).await?;
    let stored = newest.is_some() || !secrets.is_empty();
    if !steps.is_empty() || stored || !seen.raw.is_empty() || seen.has_keeper {
        let after = (0..steps.len()).map(|p| (p, Condition::Completed)).collect();
        steps.push(Step { goal: Goal::Collect, after, causes: Vec::new() });
    }
    Ok(Plan {
        backend: deployer.backend.identity(),
        cause: if volumes { "remove with volumes".into() } else { "remove".into() },
        recorded: newest.is_none(),
        steps,
        base: newest.map(|r| r.number),
        fingerprint: fingerprint(seen, deployer.backend.capabilities()),
        intent: Intent::Vanish { volumes },
        app,
    })
}

/// What a plan rests on: the objects and the hashes of what we own of them; nothing that changes
/// by itself.
pub(super) fn fingerprint(seen: &Observation, capabilities: &Capabilities) -> String {
    let ours = !capabilities.controllers;
    let instances = seen.instances.iter().filter(|_| ours);
    let mut lines: Vec<String> =
        instances.map(|i| format!("instance {} {}", i.id, i.hash)).collect();
    lines.extend(seen.endpoints.iter().map(|(name, e)| {
        let routed: Vec<&str> = e.routed.iter().filter(|_| ours).map(String::as_str).collect();
        format!("endpoint {name} {} {}", e.hash, routed.join(" "))
    }));
    lines.extend(seen.controllers.iter().map(|(name, hash)| format!("controller {name} {hash}")));
    lines.extend(seen.schedules.iter().map(|(name, hash)| format!("schedule {name} {hash}")));
    lines.extend(seen.raw.iter().map(|(name, hash)| format!("raw {name} {hash}")));
    lines.extend(seen.volumes.iter().map(|v| format!("volume {v}")));
    lines.extend(seen.networks.iter().map(|n| format!("network {n}")));
    lines.sort_unstable();
    sha256_hex(lines.join("\n").as_bytes())
}

#[cfg(test)]
#[path = "diff_tests.rs"]
mod tests;
