//! What must hold across fields.

mod service;
mod workload;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::text::{Path, cut};
use super::{App, Condition, Job, Publish, Service, ServiceName};
use crate::error::{Error, Problem, Result};

/// Most problems that one error lists.
const LISTED: usize = 100;

/// Largest content of a config, in bytes: what
/// [Swarm](https://docs.docker.com/engine/swarm/configs/) stores, the least of the backends.
const MAX_CONFIG: usize = 500 << 10;

/// Longest duration of any field: sums of such stay within what clocks can tell.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Prefix of the labels that backends set on what they own.
const LABEL_PREFIX: &str = "deploykit.";

/// Problems as they are found, of which only the first are kept.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(super) fn add(&mut self, path: Path, what: impl AsRef<str>, fix: impl AsRef<str>) {
        const MOST: usize = 600;
        if self.is_full() {
            self.more += 1;
        } else {
            let (what, fix) = (cut(what.as_ref(), MOST), cut(fix.as_ref(), MOST));
            self.list.push(Problem::new(path, what, fix));
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.list.len() >= LISTED
    }

    /// All of them; the last one says that there are more.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        if self.is_full() {
            let what = match self.more {
                0 => format!("only the first {LISTED} problems are listed"),
                more => format!(
                    "only the first {LISTED} problems are listed, of at least {}",
                    LISTED + more
                ),
            };
            self.list.push(Problem::new("", what, "correct these first"));
        }
        self.list
    }
}

impl App {
    /// Checks what must hold across fields.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with every problem.
    pub fn validate(&self) -> Result<()> {
        let problems = self.problems();
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid("validate the app", problems)) }
    }

    /// Every problem across fields.
    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut problems = Problems::default();
        self.check(&BTreeSet::new(), &mut problems);
        problems.finish()
    }

    /// Reports every problem across fields, but not of the services and jobs in `unsure`, of which
    /// something could not be read.
    pub(super) fn check(&self, unsure: &BTreeSet<String>, problems: &mut Problems) {
        let mut check = Check { app: self, unsure, problems };
        check.app();
        check.dependency_cycles();
        check.published();
        for (name, workload) in self.workloads() {
            if !unsure.contains(name.as_str()) {
                check.workload(name, workload);
            }
        }
        for (name, service) in &self.services {
            if !unsure.contains(name.as_str()) {
                check.service(name, service);
            }
        }
        for (name, job) in &self.jobs {
            if !unsure.contains(name.as_str()) {
                check.job(name, job);
            }
        }
    }
}

struct Check<'a> {
    app: &'a App,
    unsure: &'a BTreeSet<String>,
    problems: &'a mut Problems,
}

impl Check<'_> {
    fn add(&mut self, path: Path, what: impl AsRef<str>, fix: impl AsRef<str>) {
        self.problems.add(path, what, fix);
    }

    /// Where a service or a job stands in the file.
    fn at(&self, name: &ServiceName) -> Path {
        let map = if self.app.services.contains_key(name) { "services" } else { "jobs" };
        Path::default().field(map).field(name)
    }

    fn app(&mut self) {
        let app = self.app;
        let top = Path::default();
        if app.services.is_empty() && app.jobs.is_empty() {
            self.add(top.field("services"), "the app has no service and no job", "give it one");
        }
        if app.keep_revisions == 0 {
            let fix = "keep at least 1: the one that runs";
            self.add(top.field("keep_revisions"), "no revision would be kept", fix);
        }
        for name in app.jobs.keys().filter(|name| app.services.contains_key(*name)) {
            let what = format!("`{name}` is the name of a service too");
            self.add(top.field("jobs").field(name), what, "give each its own name");
        }
        for (name, secret) in &app.secrets {
            if secret.keep == 0 {
                let path = top.field("secrets").field(name).field("keep");
                self.add(path, "no version would be kept", "keep at least 1");
            }
        }
        for (name, config) in &app.configs {
            let size = config.content.len();
            if size > MAX_CONFIG {
                let path = top.field("configs").field(name).field("content");
                let what = format!("the content has {size} bytes, more than {MAX_CONFIG}");
                self.add(path, what, "put it into an image or a volume");
            }
        }
        if let Some(url) = &app.registry {
            self.registry(top.field("registry"), url);
        }
        self.labels(&top, &app.labels);
    }

    /// Which registries there are is not known here.
    fn registry(&mut self, path: Path, url: &str) {
        const EXAMPLE: &str = "give a URL, like etcd://10.0.0.1:2379/shop";
        let (scheme, rest) = url.split_once("://").unwrap_or_default();
        let user = rest.split('/').next().and_then(|place| place.rsplit_once('@'));
        if scheme.is_empty() || rest.is_empty() || url.contains(char::is_control) {
            self.add(path, "it is no URL of a registry", EXAMPLE);
        } else if user.is_some_and(|(user, _)| user.contains(':')) {
            let fix = "leave it out, and give it to the services as a secret";
            self.add(path, "the URL has a password, and apps are kept in the clear", fix);
        }
    }

    fn labels(&mut self, path: &Path, labels: &BTreeMap<String, String>) {
        for (name, value) in labels {
            let path = path.field("labels").field(name);
            if name.starts_with(LABEL_PREFIX) {
                let what = format!("labels that begin with `{LABEL_PREFIX}` are the tool's own");
                self.add(path.clone(), what, "choose another prefix");
            }
            if name.is_empty() || name.contains(char::is_control) || value.contains('\0') {
                let what = "the label is empty or has control characters";
                self.add(path, what, "use printable characters");
            }
        }
    }

    /// Reports a duration that is not within its bounds.
    fn duration(&mut self, path: Path, duration: Duration, zero: bool) {
        if duration > LONGEST {
            self.add(path, "longer than 366 days", "give a shorter time");
        } else if duration.is_zero() && !zero {
            self.add(path, "no time at all", "give a time, like 1s");
        }
    }

    /// A walk in depth along `depends_on`, without recursion: chains may be long.
    fn dependency_cycles(&mut self) {
        let app = self.app;
        let mut done = BTreeSet::new();
        for (root, _) in app.workloads() {
            let mut chain: Vec<&ServiceName> = Vec::new();
            let mut open = BTreeSet::new();
            let mut next = vec![Some(root)];
            while let Some(step) = next.pop() {
                let Some(name) = step else {
                    // All that the end of the chain waits for is done.
                    if let Some(name) = chain.pop() {
                        open.remove(name);
                        done.insert(name);
                    }
                    continue;
                };
                if open.contains(name) {
                    self.cycle(&chain, name);
                    continue;
                }
                let Some(workload) = app.workload(name) else { continue };
                if done.contains(name) || self.problems.is_full() {
                    continue;
                }
                chain.push(name);
                open.insert(name);
                next.push(None);
                // A wait for itself is reported with the other wrong conditions.
                next.extend(workload.depends_on.keys().rev().filter(|to| *to != name).map(Some));
            }
        }
    }

    fn cycle(&mut self, chain: &[&ServiceName], back_to: &ServiceName) {
        let Some(start) = chain.iter().position(|name| *name == back_to) else { return };
        let names: Vec<&str> = chain[start..].iter().map(|name| name.as_str()).collect();
        let second = names.get(1).copied().unwrap_or(back_to.as_str());
        let path = self.at(back_to).field("depends_on").field(second);
        let what = format!("`{back_to}` waits for itself: {} -> {back_to}", names.join(" -> "));
        self.add(path, what, "remove one of these; `connects_to` makes nothing wait");
    }

    /// Ports of the host and routes are there once.
    fn published(&mut self) {
        let mut places = BTreeMap::new();
        let app = self.app;
        for (name, service) in &app.services {
            if self.unsure.contains(name.as_str()) {
                continue;
            }
            for (index, port) in service.ports.iter().enumerate() {
                let place = match &port.publish {
                    Publish::HostPort(number) => {
                        let kind =
                            if port.protocol == super::Protocol::Udp { "UDP" } else { "TCP" };
                        format!("the host's {kind} port {number}")
                    }
                    Publish::Route(route) => format!("the route {}{}", route.host, route.path),
                    Publish::Internal | Publish::Public => continue,
                };
                let path = self.at(name).field("ports").index(index).field("publish");
                if let Some(first) = places.get(&place) {
                    let what = format!("{place} is taken by {first} already");
                    self.add(path, what, "choose another");
                } else {
                    places.insert(place, path);
                }
            }
        }
    }

    fn service(&mut self, name: &ServiceName, service: &Service) {
        let path = self.at(name);
        self.ports(&path, service);
        self.probes(&path, service);
        self.replicas(&path, service);
        self.update(&path, service);
    }

    fn job(&mut self, name: &ServiceName, job: &Job) {
        let path = Path::default().field("jobs").field(name);
        if let Some(timeout) = job.timeout {
            self.duration(path.field("timeout"), timeout, false);
        }
        for (index, volume) in self.per_replica(&job.mounts) {
            let what = format!("volume `{volume}` is one for each replica, and a job has none");
            let fix = format!("write `volumes.{volume}.scope: shared`");
            self.add(path.field("mounts").index(index), what, fix);
        }
    }

    /// Why that cannot be waited for as asked, and what can.
    fn condition(&self, on: &ServiceName, condition: Condition) -> Option<(String, &'static str)> {
        match (self.app.jobs.get(on), condition) {
            (Some(job), _) if job.schedule.is_some() => Some((
                format!("`{on}` runs by its schedule, not when the app is applied"),
                "wait for a job without a schedule",
            )),
            (Some(_), Condition::Healthy) => Some((
                format!("`{on}` is a job, and jobs are not `healthy`"),
                "write `completed` or `started`",
            )),
            (None, Condition::Completed) => Some((
                format!("`{on}` is a service, and services do not end"),
                "write `healthy` or `started`",
            )),
            _ => None,
        }
    }
}
