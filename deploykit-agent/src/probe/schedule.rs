//! When a probe is asked next, and what its answers add up to.

use std::time::Duration;

use deploykit_core::model::{Check, Probe};
use tokio::time::Instant;

/// When the first question is asked at the earliest: hardly anything has started sooner, and one
/// that is asked in vain costs a pause.
const SOONEST: Duration = Duration::from_millis(2);
/// The shortest pause between two questions while something starts.
const EAGER: Duration = Duration::from_millis(5);
/// The same where each question starts a process.
const EAGER_EXEC: Duration = Duration::from_millis(50);
/// The pause is this part of the time waited so far, so that a start is seen that much late.
const SHARE: u32 = 16;

#[derive(Debug)]
pub(super) struct Schedule {
    first: Instant,
    next: Instant,
    interval: Duration,
    eager: Duration,
    failure_threshold: u32,
    success_threshold: u32,
    failures: u32,
    successes: u32,
    /// It was once answered well; from then on the stated interval holds.
    ever_succeeded: bool,
    ever_passed: bool,
    passing: bool,
    failed: bool,
}

impl Schedule {
    /// Of a probe of something that starts now.
    pub(super) fn new(probe: &Probe) -> Self {
        let first = Instant::now() + probe.initial_delay.max(SOONEST);
        let eager = if matches!(probe.check, Check::Exec(_)) { EAGER_EXEC } else { EAGER };
        Self {
            first,
            next: first,
            interval: probe.interval,
            eager,
            failure_threshold: probe.failure_threshold,
            success_threshold: probe.success_threshold,
            failures: 0,
            successes: 0,
            ever_succeeded: false,
            ever_passed: false,
            passing: false,
            failed: false,
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.next
    }

    pub(super) fn is_passing(&self) -> bool {
        self.passing
    }

    /// It has failed as often as it takes, and as long.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Takes the answer to the question that was due.
    pub(super) fn answered(&mut self, success: bool) {
        let now = Instant::now();
        if success {
            self.failures = 0;
            self.successes += 1;
            self.ever_succeeded = true;
            if self.successes >= self.success_threshold {
                self.passing = true;
                self.ever_passed = true;
                self.failed = false;
            }
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            let patient =
                !self.ever_passed && now < self.first + self.interval * self.failure_threshold;
            if self.failures >= self.failure_threshold && !patient {
                self.passing = false;
                self.failed = true;
            }
        }
        let pause = if self.ever_succeeded {
            self.interval
        } else {
            ((now - self.first) / SHARE).max(self.eager).min(self.interval)
        };
        self.next = now + pause;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(change: impl FnOnce(&mut Probe)) -> Schedule {
        let mut probe = Probe::tcp();
        change(&mut probe);
        Schedule::new(&probe)
    }

    /// Answers what is due until `end` after the start; says when it was asked.
    async fn run(
        schedule: &mut Schedule,
        end: Duration,
        answer: impl Fn(Duration) -> bool,
    ) -> Vec<Duration> {
        let start = Instant::now();
        let mut asked = Vec::new();
        while schedule.next() - start <= end && !schedule.has_failed() {
            tokio::time::sleep_until(schedule.next()).await;
            asked.push(start.elapsed());
            schedule.answered(answer(start.elapsed()));
        }
        asked
    }

    #[tokio::test(start_paused = true)]
    async fn asks_often_until_the_first_success_and_then_at_the_interval() {
        let mut schedule = schedule(|_| {});
        let started = Duration::from_millis(400);
        let asked = run(&mut schedule, Duration::from_secs(5), |age| age >= started).await;
        let seen = asked.iter().position(|at| *at >= started).unwrap_or_default();
        assert!(asked[seen] - started < started / 10, "seen {:?} late", asked[seen] - started);
        assert!(seen < 60, "asked {seen} times");
        assert!(asked[seen..].windows(2).all(|two| two[1] - two[0] == Duration::from_secs(1)));
        assert!(schedule.is_passing() && !schedule.has_failed());
    }

    #[tokio::test(start_paused = true)]
    async fn eager_questions_do_not_bring_the_failure_forward() {
        let mut schedule = schedule(|probe| probe.initial_delay = Duration::from_secs(2));
        let asked = run(&mut schedule, Duration::from_secs(60), |_| false).await;
        assert!(schedule.has_failed());
        let last = asked.last().copied().unwrap_or_default();
        assert!((Duration::from_secs(5)..Duration::from_secs(7)).contains(&last), "{last:?}");
        assert_eq!(asked.first(), Some(&Duration::from_secs(2)));
    }

    #[tokio::test(start_paused = true)]
    async fn thresholds_count_in_a_row() {
        let mut schedule = schedule(|probe| probe.success_threshold = 2);
        schedule.answered(true);
        assert!(!schedule.is_passing());
        schedule.answered(false);
        schedule.answered(true);
        assert!(!schedule.is_passing());
        schedule.answered(true);
        assert!(schedule.is_passing());
        for (answer, passing) in [
            (false, true),
            (false, true),
            (true, true),
            (false, true),
            (false, true),
            (false, false),
        ] {
            schedule.answered(answer);
            assert_eq!(schedule.is_passing(), passing);
        }
        assert!(schedule.has_failed());
        schedule.answered(true);
        assert!(schedule.has_failed() && !schedule.is_passing());
        schedule.answered(true);
        assert!(!schedule.has_failed() && schedule.is_passing());
    }
}
