//! Jobs.

use std::collections::BTreeSet;

use deploykit_core::model::Job;

use crate::yaml::Node;

use super::fields::{common, deploy};
use super::{Converter, section};

/// The services that are jobs: others wait for their end, or their mode says so.
pub(super) fn names(root: &Node) -> BTreeSet<&str> {
    let mut jobs = BTreeSet::new();
    for (name, service) in section(root, "services") {
        let mode = deploy(service, &["mode"]).and_then(Node::as_str);
        if mode == Some("replicated-job") {
            jobs.insert(name);
        }
        for (dependency, node) in service.get("depends_on").into_iter().flat_map(Node::entries) {
            if node.str("condition") == Some("service_completed_successfully") {
                jobs.insert(dependency);
            }
        }
    }
    jobs
}

impl Converter<'_> {
    pub(super) fn job(&mut self, node: &Node, path: &str) -> Option<Job> {
        let mut job = Job::new(self.image(node, path)?);
        common!(&mut *self, job, node, path);
        for key in ["ports", "expose", "healthcheck", "scale"] {
            if let Some(there) = node.get(key) {
                self.problem(
                    there.span,
                    path,
                    format!("a job has no `{key}`; it runs once to its end"),
                );
            }
        }
        for key in ["replicas", "update_config", "restart_policy"] {
            if let Some(there) = deploy(node, &[key]) {
                self.problem(
                    there.span,
                    path,
                    format!("a job has no `deploy.{key}`; it runs once"),
                );
            }
        }
        if let Some(restart) = node.get("restart") {
            let text = restart.as_str().unwrap_or_default();
            let retries = text.strip_prefix("on-failure:").and_then(|n| n.parse().ok());
            match (text, retries) {
                ("no", _) => {}
                (_, Some(retries)) => job.retries = retries,
                _ => {
                    let what = "a job is tried again a number of times; write no, or on-failure:3";
                    self.problem(restart.span, path, what);
                }
            }
        }
        Some(job)
    }
}
