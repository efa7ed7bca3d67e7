//! The life of a simulated instance, from its start to its end.

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::app::{App, Sim};
use super::prober::Prober;
use super::{Host, Shared};
use crate::diagnosis::Reason;
use crate::memory::Dials;
use crate::model::{AppName, Probes, RestartPolicy, Signal};
use crate::observation::{Exit, Instance, InstanceState};
use crate::orchestrator::OutputStream;
use crate::runtime::InstanceSpec;

/// The pause before the first new start; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest pause before a new start.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The strings that a simulated instance is held by.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) task: AbortHandle,
    pub(super) stop: Arc<Notify>,
    pub(super) kill: Arc<Notify>,
}

/// Begins the life of an instance.
pub(super) fn start(host: &Host, app: &AppName, spec: &InstanceSpec) -> Sim {
    let dials = Dials::read(&spec.template.env);
    let (stop, kill) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let living = Living {
        shared: Arc::downgrade(&host.0),
        app: app.clone(),
        spec: spec.clone(),
        dials: dials.clone(),
        stop: stop.clone(),
        kill: kill.clone(),
    };
    let task = tokio::spawn(living.live()).abort_handle();
    let seen = Instance {
        id: spec.id.clone(),
        service: spec.service.clone(),
        revision: spec.revision,
        hash: spec.hash.clone(),
        slot: spec.slot,
        state: InstanceState::Running,
        ready: false,
        restarts: 0,
        addresses: Vec::new(),
        started_at: Some(SystemTime::now()),
        host: "simulated".into(),
        trouble: None,
    };
    let life = Life { task, stop, kill };
    Sim { spec: spec.clone(), dials, life, seen, in_flight: 0, served: 0 }
}

struct Living {
    shared: Weak<Shared>,
    app: AppName,
    spec: InstanceSpec,
    dials: Dials,
    stop: Arc<Notify>,
    kill: Arc<Notify>,
}

/// Why one run of an instance has ended.
enum End {
    ByItself(Exit),
    Asked(Exit),
}

impl Living {
    async fn live(self) {
        let mut restarts = 0;
        loop {
            let exit = match self.run().await {
                Some(End::ByItself(exit)) => exit,
                Some(End::Asked(exit)) => return self.ended(exit),
                None => return,
            };
            let again = !self.spec.job
                && match self.spec.template.restart {
                    RestartPolicy::Always => true,
                    RestartPolicy::OnFailure => !exit.is_success(),
                    _ => false,
                };
            if !again {
                return self.ended(exit);
            }
            self.change(|app| {
                let log = app.tail(&self.spec.id, 10);
                let Some(sim) = app.instances.get_mut(&self.spec.id) else { return };
                sim.seen.state = InstanceState::BackOff;
                sim.seen.ready = false;
                let exit = exit.to_string();
                sim.seen.trouble = Some(Reason::CrashLoop { exit, restarts, log });
            });
            let pause = FIRST_PAUSE * 2_u32.saturating_pow(restarts.min(16));
            tokio::select! {
                () = sleep(pause.min(LONGEST_PAUSE)) => {}
                () = self.stop.notified() => return self.ended(exit),
            }
            restarts += 1;
            self.change(|app| {
                let Some(sim) = app.instances.get_mut(&self.spec.id) else { return };
                sim.seen.state = InstanceState::Running;
                sim.seen.restarts = restarts;
                sim.seen.started_at = Some(SystemTime::now());
            });
        }
    }

    /// Runs it once. Nothing is returned when the host is gone.
    async fn run(&self) -> Option<End> {
        let began = Instant::now();
        let fails_at_once = self.begin()?;
        let ends = async {
            match (fails_at_once, self.dials.exit_after) {
                (true, _) => Exit::Code(1),
                (false, Some(after)) => {
                    sleep_until(began + after).await;
                    Exit::Code(self.dials.exit_code)
                }
                (false, None) => std::future::pending().await,
            }
        };
        let end = tokio::select! {
            biased;
            () = self.kill.notified() => End::ByItself(Exit::Signal(9)),
            () = self.stop.notified() => End::Asked(self.wind_down().await),
            exit = ends => End::ByItself(exit),
            () = self.probe(began) => End::ByItself(Exit::Signal(15)),
        };
        Some(end)
    }

    /// What it does first. Returns whether it then fails.
    fn begin(&self) -> Option<bool> {
        self.change(|app| {
            let id = &self.spec.id;
            let line = format!("testapp {} started as {id}", self.dials.version);
            app.print(id, OutputStream::Stdout, line);
            if let Some(line) = &self.dials.print {
                app.print(id, OutputStream::Stdout, line.clone());
            }
            let Some(volume) = &self.dials.runs else { return false };
            let file = app.instances.get(id).and_then(|sim| sim.volume_file(volume, "runs"));
            let files = app.volumes.get_mut(volume.as_str());
            let (Some(file), Some(files)) = (file, files) else { return true };
            let runs = files.entry(file).or_default();
            runs.push_str(&format!("{id}\n"));
            let fails = runs.lines().count() as u64 <= self.dials.fail_runs;
            if fails {
                app.print(id, OutputStream::Stderr, "told to fail".into());
            }
            fails
        })
    }

    /// What it does when it is asked to end.
    async fn wind_down(&self) -> Exit {
        let template = &self.spec.template;
        self.change(|app| {
            let signal = template.stop_signal;
            app.print(&self.spec.id, OutputStream::Stdout, format!("stopping on {signal:?}"));
            let Some(sim) = app.instances.get_mut(&self.spec.id) else { return };
            sim.seen.state = InstanceState::Stopping;
            sim.seen.ready = false;
        });
        if template.stop_signal == Signal::Kill {
            return Exit::Signal(9);
        }
        if self.dials.ignore_stop || self.dials.drain > template.stop_grace {
            tokio::select! {
                () = sleep(template.stop_grace) => {}
                () = self.kill.notified() => {}
            }
            return Exit::Signal(9);
        }
        sleep(self.dials.drain).await;
        Exit::Code(0)
    }

    /// Asks its probes, until one says that it has to be started again.
    async fn probe(&self, began: Instant) {
        let none = Probes::default();
        let probes = if self.spec.job { &none } else { &self.spec.template.probes };
        let mut prober = Prober::new(probes, &self.dials);
        loop {
            let verdict = prober.ask(began.elapsed());
            let told = self.change_if(|app| {
                let Some(sim) = app.instances.get_mut(&self.spec.id) else { return false };
                let before = (sim.seen.ready, sim.seen.trouble.clone());
                sim.seen.ready = verdict.ready;
                // A crash is no longer what is wrong once it is ready again.
                let crashed = sim.seen.trouble.take().filter(|_| !verdict.ready);
                sim.seen.trouble = verdict.trouble.or(crashed);
                before != (sim.seen.ready, sim.seen.trouble.clone())
            });
            if told.is_none() || verdict.restart {
                return;
            }
            match verdict.next {
                Some(next) => sleep_until(began + next).await,
                None => std::future::pending().await,
            }
        }
    }

    fn ended(&self, exit: Exit) {
        self.change(|app| {
            let Some(sim) = app.instances.get_mut(&self.spec.id) else { return };
            sim.seen.state = InstanceState::Exited(exit);
            sim.seen.ready = false;
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut App) -> T) -> Option<T> {
        Some(Host(self.shared.upgrade()?).change(&self.app, change))
    }

    /// Tells of a change only where `change` returns that there was one.
    fn change_if(&self, change: impl FnOnce(&mut App) -> bool) -> Option<()> {
        let host = Host(self.shared.upgrade()?);
        let changed = super::lock(&host.0.apps).get_mut(&self.app).is_some_and(change);
        if changed {
            host.0.changes.send_modify(|n| *n += 1);
        }
        Some(())
    }
}
