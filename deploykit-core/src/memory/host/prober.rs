//! Probes of simulated instances.

use std::time::Duration;

use super::exec;
use crate::diagnosis::Reason;
use crate::memory::Dials;
use crate::model::{Check, Probe, Probes};

/// How often something that has never passed is asked.
const EAGER: Duration = Duration::from_millis(20);

/// One probe of an instance, and how it went.
struct Asked<'a> {
    name: &'static str,
    probe: &'a Probe,
    next: Duration,
    failures: u32,
    successes: u32,
    ever_passed: bool,
    passing: bool,
}

/// All probes of an instance, from one start to its end.
pub(super) struct Prober<'a> {
    dials: &'a Dials,
    startup: Option<Asked<'a>>,
    readiness: Option<Asked<'a>>,
    liveness: Option<Asked<'a>>,
}

/// What the probes say.
#[derive(Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) ready: bool,
    pub(super) trouble: Option<Reason>,
    /// A startup or liveness probe has failed: it has to be started again.
    pub(super) restart: bool,
    /// When the next question is due, after the start.
    pub(super) next: Option<Duration>,
}

impl<'a> Asked<'a> {
    fn new(name: &'static str, probe: &'a Probe) -> Self {
        Self {
            name,
            probe,
            next: probe.initial_delay,
            failures: 0,
            successes: 0,
            ever_passed: false,
            passing: false,
        }
    }

    /// Asks, where it is due, and returns whether it has failed for good by now.
    fn ask(&mut self, age: Duration, dials: &Dials) {
        if age < self.next {
            return;
        }
        if answer(&self.probe.check, age, dials).is_ok() {
            self.failures = 0;
            self.successes += 1;
            if self.successes >= self.probe.success_threshold {
                self.passing = true;
                self.ever_passed = true;
            }
        } else {
            self.successes = 0;
            self.failures += 1;
        }
        let pause = if self.ever_passed { self.probe.interval } else { EAGER };
        self.next = age + pause.min(self.probe.interval);
        if self.failed(age) {
            self.passing = false;
        }
    }

    /// Eager questions do not bring the failure forward.
    fn failed(&self, age: Duration) -> bool {
        let patience =
            self.probe.initial_delay + self.probe.interval * self.probe.failure_threshold;
        self.failures >= self.probe.failure_threshold && (self.ever_passed || age >= patience)
    }

    fn trouble(&self, age: Duration, dials: &Dials) -> Option<Reason> {
        let answer = answer(&self.probe.check, age, dials).err()?;
        self.failed(age).then(|| Reason::ProbeFailing {
            probe: self.name.into(),
            answer: answer.into(),
            log: Vec::new(),
        })
    }
}

impl<'a> Prober<'a> {
    pub(super) fn new(probes: &'a Probes, dials: &'a Dials) -> Self {
        Self {
            dials,
            startup: probes.startup.as_ref().map(|p| Asked::new("startup", p)),
            readiness: probes.readiness.as_ref().map(|p| Asked::new("readiness", p)),
            liveness: probes.liveness.as_ref().map(|p| Asked::new("liveness", p)),
        }
    }

    /// Asks what is due, that long after the start.
    pub(super) fn ask(&mut self, age: Duration) -> Verdict {
        let dials = self.dials;
        let starting = self.startup.as_mut().filter(|p| !p.ever_passed);
        if let Some(startup) = starting {
            startup.ask(age, dials);
            if !startup.ever_passed {
                return Verdict {
                    ready: false,
                    trouble: startup.trouble(age, dials),
                    restart: startup.failed(age),
                    next: Some(startup.next),
                };
            }
        }
        let mut verdict = Verdict { ready: true, trouble: None, restart: false, next: None };
        if let Some(readiness) = &mut self.readiness {
            readiness.ask(age, dials);
            verdict.ready = readiness.passing;
            verdict.trouble = readiness.trouble(age, dials);
            verdict.next = Some(readiness.next);
        }
        if let Some(liveness) = &mut self.liveness {
            liveness.ask(age, dials);
            verdict.restart = liveness.failed(age);
            verdict.trouble = liveness.trouble(age, dials).or(verdict.trouble);
            verdict.next = verdict.next.into_iter().chain([liveness.next]).min();
        }
        verdict
    }
}

/// What the test application answers, that long after its start.
fn answer(check: &Check, age: Duration, dials: &Dials) -> Result<(), &'static str> {
    match check {
        Check::Exec(exec) => {
            let healthy = dials.healthy(age);
            exec::passes(&exec.command, healthy).then_some(()).ok_or("exit code 1")
        }
        _ if !dials.listens(age) => Err("connection refused"),
        Check::Tcp(_) => Ok(()),
        Check::Http(_) => dials.healthy(age).then_some(()).ok_or("503 Service Unavailable"),
        Check::Grpc(_) => dials.healthy(age).then_some(()).ok_or("NOT_SERVING"),
    }
}
