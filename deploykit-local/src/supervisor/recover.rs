//! Taking over a folder: what an earlier supervisor, or the boot before, left behind.
//!
//! A row is written before its process is started, and the process carries the row's id in its
//! environment, so there is no moment in which a process could be lost. A child that has not
//! reached its exec yet still holds the lock of the folder with the supervisor's open files: who
//! has the lock sees every process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::Condition;
use deploykit_core::{Exit, InstanceState, Result};
use tokio::time::Instant;

use super::{Hosted, Supervisor};
use crate::database::InstanceRow;
use crate::error;
use crate::process::{Identity, Process, boot_id, scan};

/// How long an instance waits for what it depends on, after a boot.
const PATIENCE: Duration = Duration::from_secs(60);

impl Supervisor {
    /// Adopts, ends and starts until the folder is as its rows say.
    pub(super) async fn recover(self: &Arc<Self>) -> Result<()> {
        let failed = |e| error::io("look for running instances", std::path::Path::new("/proc"), e);
        let (rows, endpoints) = {
            let mut state = self.state();
            let held = state.database.held()?;
            state.leases = held.into_iter().map(|(app, ttl)| (app, Instant::now() + ttl)).collect();
            (state.database.instances()?, state.database.endpoints()?)
        };
        for row in endpoints {
            self.serve_again(row);
        }
        let boot = boot_id().map_err(failed)?;
        let mut living = BTreeMap::new();
        // An instance's row goes after its processes: with no row, there is none to look for.
        if !rows.is_empty() {
            living = self.living(&rows, &boot).await.map_err(failed)?;
        }
        let known: BTreeSet<String> = rows.iter().map(|row| row.spec.id.clone()).collect();
        self.delivery.retain(|id| known.contains(id)).map_err(failed)?;
        for row in rows {
            let process = living.remove(&row.spec.id);
            self.take_over(row, process, &boot);
        }
        self.tasks.spawn(Arc::clone(self).bind_again());
        Ok(())
    }

    /// Adopts the processes of rows, and ends whatever else carries the folder's marker: it
    /// belongs to an instance that has ended.
    async fn living(
        &self,
        rows: &[InstanceRow],
        boot: &str,
    ) -> std::io::Result<BTreeMap<String, Process>> {
        let leaders = leaders(&self.folder_id)?;
        let mut living = BTreeMap::new();
        for row in rows {
            if let Some(process) = adopt(row, boot, &leaders)? {
                living.insert(row.spec.id.clone(), process);
            }
        }
        let kept: BTreeSet<String> = living.keys().cloned().collect();
        let folder_id = self.folder_id.clone();
        let swept = tokio::task::spawn_blocking(move || {
            scan::sweep(|| scan::marked(&folder_id), |f| !kept.contains(&f.instance))
        });
        swept.await.map_err(std::io::Error::other)??;
        Ok(living)
    }

    fn take_over(self: &Arc<Self>, row: InstanceRow, process: Option<Process>, boot: &str) {
        let before = row.phase.process.clone();
        let hosted = Arc::new(Hosted::new(row));
        {
            let mut state = self.state();
            state.ports.keep(&hosted.phase().ports);
            state.instances.insert(hosted.spec.id.clone(), Arc::clone(&hosted));
        }
        if hosted.ended.is_cancelled() {
            return;
        }
        let phase = hosted.phase();
        match process {
            Some(process) => self.update(&hosted, |live| {
                live.phase.process = Some(process.identity().clone());
                live.state = InstanceState::Running;
                self.tasks.spawn(Arc::clone(self).host(Arc::clone(&hosted), Some(process)));
            }),
            // It ended while nobody watched. A job is never started twice: what it has done by
            // then is not known.
            None if phase.stopped || hosted.spec.job => self.over(&hosted, Exit::Lost, None),
            None => {
                if before.is_some_and(|before| before.boot == boot) {
                    self.update(&hosted, |live| {
                        live.phase.process = None;
                        live.phase.exit = Some(Exit::Lost);
                    });
                }
                self.tasks.spawn(Arc::clone(self).host_in_order(hosted));
            }
        }
    }

    /// Hosts an instance once what it depends on is there, or has not come up for too long.
    async fn host_in_order(self: Arc<Self>, hosted: Arc<Hosted>) {
        let there = async {
            let mut changes = self.subscribe(&hosted.app);
            while !self.is_depended_on_there(&hosted) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            late = tokio::time::timeout(PATIENCE, there) => if late.is_err() {
                self.note(format_args!("{}: starts without what it depends on", hosted.spec.id));
            },
            () = hosted.stop.cancelled() => {}
            () = self.closing.cancelled() => {}
        }
        self.host(hosted, None).await;
    }

    fn is_depended_on_there(&self, hosted: &Hosted) -> bool {
        let state = self.state();
        hosted.spec.depends_on.iter().all(|(service, condition)| {
            let mut of = state
                .instances
                .values()
                .filter(|other| other.app == hosted.app && other.spec.service == *service);
            match condition {
                Condition::Started => of.any(|other| other.live().state == InstanceState::Running),
                Condition::Healthy => of.any(|other| other.live().ready),
                // A job that had not succeeded would have kept this instance from being made.
                Condition::Completed => true,
            }
        })
    }
}

/// The process of each instance that leads its group: the one that a supervisor started.
fn leaders(folder_id: &str) -> std::io::Result<BTreeMap<String, (u32, u64)>> {
    let mut leaders = BTreeMap::new();
    for found in scan::marked(folder_id)?.into_iter().filter(|found| found.stat.group == found.pid)
    {
        let earliest = leaders.entry(found.instance).or_insert((found.pid, found.stat.started));
        if found.stat.started < earliest.1 {
            *earliest = (found.pid, found.stat.started);
        }
    }
    Ok(leaders)
}

/// The process of a row: the one that it names, or, where the supervisor died between the start
/// and the note of it, the one that names the row.
fn adopt(
    row: &InstanceRow,
    boot: &str,
    leaders: &BTreeMap<String, (u32, u64)>,
) -> std::io::Result<Option<Process>> {
    if row.phase.over {
        return Ok(None);
    }
    let identity = match &row.phase.process {
        Some(identity) => identity.clone(),
        None => match leaders.get(&row.spec.id) {
            Some((pid, started)) => {
                Identity { boot: boot.to_owned(), pid: *pid, started: *started }
            }
            None => return Ok(None),
        },
    };
    Process::adopt(identity)
}
