//! The life of one instance: watched, started again, ended.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use deploykit_core::model::RestartPolicy;
use deploykit_core::{Exit, InstanceState, Reason};
use tokio::time::Instant;

use super::Supervisor;
use super::hosted::{Hosted, signal};
use crate::process::{Process, scan};

/// The pause before the second start in a row; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// An instance that ran for this long has not failed in a row.
const STEADY: Duration = Duration::from_secs(10);

/// Why an instance that ran is not watched any more.
enum Turn {
    Ended(Exit),
    /// A deployer wants it to end.
    Stop,
    /// Its liveness probe fails.
    Unhealthy,
    /// The supervisor ends and takes it along.
    Close,
}

impl Supervisor {
    /// Hosts an instance until it has ended for good, or the supervisor ends. Without a process,
    /// one is started first.
    pub(super) async fn host(self: Arc<Self>, hosted: Arc<Hosted>, mut process: Option<Process>) {
        let mut in_a_row = 0_u32;
        loop {
            let running = match process.take() {
                Some(running) => running,
                None => match self.start_again(&hosted, &mut in_a_row).await {
                    Some(running) => running,
                    None => return,
                },
            };
            let since = Instant::now();
            let turn = tokio::select! {
                exit = running.exited() => Turn::Ended(exit),
                () = hosted.stop.cancelled() => Turn::Stop,
                () = self.closing.cancelled() => Turn::Close,
                () = self.watch_health(&hosted) => Turn::Unhealthy,
            };
            if since.elapsed() >= STEADY {
                in_a_row = 0;
            }
            let exit = match &turn {
                Turn::Ended(exit) => *exit,
                Turn::Stop | Turn::Unhealthy | Turn::Close => self.end(&hosted, &running).await,
            };
            if let Err(e) = self.sweep(&hosted, &running).await {
                self.note(format_args!(
                    "{}: what it left behind could not be ended: {e}",
                    hosted.spec.id
                ));
            }
            match turn {
                Turn::Stop => return self.over(&hosted, exit, None),
                Turn::Close if hosted.spec.job => return self.over(&hosted, exit, None),
                // The next supervisor of the folder starts it again.
                Turn::Close => return self.update(&hosted, |live| live.phase.process = None),
                Turn::Ended(_) | Turn::Unhealthy => {
                    let unhealthy = matches!(turn, Turn::Unhealthy);
                    if !starts_again(&hosted, exit, unhealthy) {
                        let trouble = self.trouble(&hosted, exit);
                        return self.over(&hosted, exit, trouble);
                    }
                    let trouble = if unhealthy { None } else { self.trouble(&hosted, exit) };
                    self.update(&hosted, |live| {
                        live.phase.exit = Some(exit);
                        live.phase.process = None;
                        live.state = InstanceState::BackOff;
                        live.ready = false;
                        // After a failed probe, what the probe saw stays the reason.
                        live.trouble = trouble.or(live.trouble.take());
                    });
                }
            }
        }
    }

    /// Asks a process to end, and sees to it that it does.
    async fn end(&self, hosted: &Hosted, running: &Process) -> Exit {
        self.update(hosted, |live| {
            live.state = InstanceState::Stopping;
            live.ready = false;
        });
        let template = &hosted.spec.template;
        match running.stop(signal(template.stop_signal), template.stop_grace).await {
            Ok(exit) => exit,
            Err(e) => {
                self.note(format_args!("{}: cannot be signalled: {e}", hosted.spec.id));
                running.exited().await
            }
        }
    }

    /// Ends what an instance has left behind.
    async fn sweep(&self, hosted: &Hosted, ended: &Process) -> io::Result<()> {
        if !(self.takes_orphans && ended.is_child()) {
            return self.sweeper.sweep(&hosted.spec.id).await;
        }
        let (folder_id, id) = (self.folder_id.clone(), hosted.spec.id.clone());
        let known = self.hosted_pids();
        let sweep = move || {
            scan::sweep(|| scan::marked_orphans(&folder_id, &known), |found| found.instance == id)
        };
        tokio::task::spawn_blocking(sweep).await.map_err(io::Error::other)?.map(drop)
    }

    /// Starts it after a pause that grows; nothing where it was asked to end meanwhile.
    async fn start_again(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        in_a_row: &mut u32,
    ) -> Option<Process> {
        loop {
            let pause = pause(*in_a_row);
            *in_a_row += 1;
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = hosted.stop.cancelled() => {
                    let exit = hosted.phase().exit.unwrap_or(Exit::Lost);
                    self.over(hosted, exit, None);
                    return None;
                }
                () = self.closing.cancelled() => return None,
            }
            if hosted.phase().exit.is_some() {
                self.update(hosted, |live| live.phase.restarts += 1);
            }
            match self.launch_off_thread(hosted).await {
                Ok(process) => {
                    self.started(hosted, &process);
                    return Some(process);
                }
                Err(reason) => {
                    self.note(format_args!("{}: {reason}", hosted.spec.id));
                    self.update(hosted, |live| {
                        live.state = InstanceState::BackOff;
                        live.trouble = Some(reason);
                    });
                }
            }
        }
    }

    /// Launches on a thread that may block.
    pub(super) async fn launch_off_thread(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
    ) -> Result<Process, Reason> {
        let (this, hosted) = (Arc::clone(self), Arc::clone(hosted));
        match tokio::task::spawn_blocking(move || this.launch(&hosted)).await {
            Ok(launched) => launched,
            Err(e) => Err(Reason::StartFailed { message: e.to_string() }),
        }
    }

    /// Notes that a process runs.
    pub(super) fn started(&self, hosted: &Hosted, process: &Process) {
        self.update(hosted, |live| {
            live.phase.process = Some(process.identity().clone());
            live.phase.started_at = Some(SystemTime::now());
            live.state = InstanceState::Running;
        });
    }

    /// Notes that it has ended for good.
    pub(super) fn over(&self, hosted: &Hosted, exit: Exit, trouble: Option<Reason>) {
        if let Err(e) = self.delivery.remove(&hosted.spec.id) {
            self.note(format_args!("{}: its secrets could not be removed: {e}", hosted.spec.id));
        }
        self.update(hosted, |live| {
            live.phase.exit = Some(exit);
            live.phase.over = true;
            live.state = InstanceState::Exited(exit);
            live.ready = false;
            live.trouble = trouble;
        });
        hosted.ended.cancel();
    }

    /// What an end says about the instance.
    fn trouble(&self, hosted: &Hosted, exit: Exit) -> Option<Reason> {
        if hosted.spec.job && exit.is_success() {
            return None;
        }
        let log = hosted.evidence(&self.folder);
        let exit = exit.to_string();
        Some(if hosted.spec.job {
            Reason::JobFailed { exit, log }
        } else {
            Reason::CrashLoop { exit, restarts: hosted.phase().restarts, log }
        })
    }
}

fn starts_again(hosted: &Hosted, exit: Exit, unhealthy: bool) -> bool {
    !hosted.spec.job
        && match hosted.spec.template.restart {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => unhealthy || !exit.is_success(),
            _ => false,
        }
}

fn pause(in_a_row: u32) -> Duration {
    match in_a_row {
        0 => Duration::ZERO,
        n => FIRST_PAUSE.saturating_mul(1 << (n - 1).min(16)).min(LONGEST_PAUSE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit() {
        let pauses: Vec<u128> =
            [0, 1, 2, 3, 9, 10, 4_000_000_000].map(|n| pause(n).as_millis()).to_vec();
        assert_eq!(pauses, [0, 100, 200, 400, 25_600, 30_000, 30_000]);
    }
}
