//! The order of services and jobs.

use std::collections::BTreeSet;

use crate::model::{App, ServiceName};

/// Every service and job, each after what it depends on. The app is validated: it has no cycle.
pub(super) fn by_dependency(app: &App) -> Vec<ServiceName> {
    let mut placed = BTreeSet::new();
    let mut order = Vec::new();
    let mut pending: Vec<_> = app.workloads().collect();
    while !pending.is_empty() {
        let before = pending.len();
        pending.retain(|(name, workload)| {
            let unmet = |d: &ServiceName| app.workload(d).is_some() && !placed.contains(d);
            if workload.depends_on.keys().any(unmet) {
                return true;
            }
            placed.insert((*name).clone());
            order.push((*name).clone());
            false
        });
        if pending.len() == before {
            // A cycle: validation has refused it, and no order is better than another.
            order.extend(pending.drain(..).map(|(name, _)| name.clone()));
        }
    }
    order
}
