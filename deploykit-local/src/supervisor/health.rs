//! Probes: whether an instance is ready, and whether it is alive.

use deploykit_agent::probe::{Health, Prober, Target};
use deploykit_core::Reason;

use super::Supervisor;
use super::hosted::Hosted;

impl Supervisor {
    /// Keeps `ready` true to what the probes say. Ends when the instance has to be started again.
    pub(super) async fn watch_health(&self, hosted: &Hosted) {
        let template = &hosted.spec.template;
        let declared = template.ports.iter().map(|port| port.port);
        let mut target =
            Target::new(declared.filter_map(|port| Some((port, hosted.address(port)?))));
        match self.surroundings(hosted) {
            Ok(surroundings) => {
                target.environment = surroundings.env;
                target.workdir = Some(surroundings.workdir);
            }
            Err(e) => self
                .note(format_args!("{}: its commands lack their environment: {e}", hosted.spec.id)),
        }
        let mut health = Prober::spawn(template.probes.clone(), target);
        loop {
            let now = health.borrow_and_update().clone();
            let restart = now.restart;
            self.take_health(hosted, now);
            if restart || health.changed().await.is_err() {
                return;
            }
        }
    }

    fn take_health(&self, hosted: &Hosted, health: Health) {
        let trouble = health.failing.map(|answer| Reason::ProbeFailing {
            probe: answer.probe,
            answer: answer.text,
            log: hosted.evidence(&self.folder),
        });
        self.update(hosted, |live| {
            live.ready = health.ready;
            // Until it is ready again, the reason of its last end stays.
            if health.ready || trouble.is_some() {
                live.trouble = trouble;
            }
        });
    }
}
