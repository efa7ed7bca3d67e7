//! The supervisor: owns the processes, the state file and the proxies of one state folder.
//!
//! Each instance has a task of its own ([`lifecycle`]) that waits for its process, its probes and
//! the wish that it end. Everything else is a short critical section on [`State`].

mod disk;
mod endpoints;
mod health;
mod hosted;
mod instances;
mod launch;
mod lifecycle;
mod recover;
mod requests;
mod stores;
mod sweeper;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deploykit_agent::seal::Key;
use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{OutputStream, Result};
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::addresses::Ports;
use crate::changes::Snapshot;
use crate::database::Database;
use crate::delivery::Delivery;
use crate::executables::Executables;
use crate::folder::{Folder, Lock};
use crate::logs;
use crate::process::scan;
use disk::Disk;
use endpoints::Served;
use hosted::{Hosted, Live};
use sweeper::Sweeper;

/// How often logs are looked at for what can be given back.
const TRIM: Duration = Duration::from_secs(30);
/// How often ended orphans are cleared away.
const BURY: Duration = Duration::from_secs(10);

/// The owner of one state folder; see the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Supervisor {
    folder: Folder,
    folder_id: String,
    executables: Executables,
    disk: Disk,
    delivery: Delivery,
    /// Where the folder's key is.
    keys: PathBuf,
    state: Mutex<State>,
    sweeper: Sweeper,
    tasks: TaskTracker,
    /// Cancelled when the supervisor ends and takes its instances along.
    closing: CancellationToken,
    /// Whether it writes what it notes to standard error.
    journal: bool,
    /// Whether what instances leave behind becomes its child.
    takes_orphans: bool,
    _lock: Lock,
}

/// What is changed in one piece.
#[derive(Debug)]
struct State {
    database: Database,
    key: Option<Arc<Key>>,
    instances: BTreeMap<String, Arc<Hosted>>,
    endpoints: BTreeMap<(AppName, ServiceName), Served>,
    ports: Ports,
    /// When each lease that is held runs out.
    leases: BTreeMap<AppName, Instant>,
    watchers: BTreeMap<AppName, watch::Sender<u64>>,
    /// Of the apps that somebody has looked at.
    snapshots: BTreeMap<AppName, Snapshot>,
}

impl State {
    /// What there is of an app, for whoever looks at it.
    fn snapshot(&mut self, app: &AppName) -> &mut Snapshot {
        self.snapshots.entry(app.clone()).or_insert_with(|| {
            let mut snapshot = Snapshot::default();
            for hosted in self.instances.values().filter(|hosted| hosted.app == *app) {
                snapshot.set_instance(&hosted.spec.id, Some(hosted.observe()));
            }
            for ((_, service), served) in self.endpoints.iter().filter(|((of, _), _)| of == app) {
                snapshot.set_endpoint(service, Some(served.observe()));
            }
            snapshot
        })
    }

    /// Tells those who watch its app that an instance has changed, or is gone.
    fn instance_changed(&mut self, hosted: &Hosted) {
        if let Some(snapshot) = self.snapshots.get_mut(&hosted.app) {
            let now = self.instances.get(&hosted.spec.id).map(|hosted| hosted.observe());
            snapshot.set_instance(&hosted.spec.id, now);
        }
        self.notify(&hosted.app);
    }

    /// Tells those who watch its app that an endpoint has changed, or is gone.
    fn endpoint_changed(&mut self, key: &(AppName, ServiceName)) {
        if let Some(snapshot) = self.snapshots.get_mut(&key.0) {
            snapshot.set_endpoint(&key.1, self.endpoints.get(key).map(Served::observe));
        }
        self.notify(&key.0);
    }

    fn notify(&self, app: &AppName) {
        if let Some(watchers) = self.watchers.get(app) {
            watchers.send_modify(|count| *count += 1);
        }
    }
}

impl Supervisor {
    /// Takes over a folder: adopts what runs, ends what nobody wants, starts what is missing.
    /// With `journal`, standard error is its own to write to.
    ///
    /// # Errors
    /// `Corrupt` where the state file cannot be used; nothing has been touched then.
    pub(crate) async fn open(
        folder: Folder,
        lock: Lock,
        keys: PathBuf,
        journal: bool,
    ) -> Result<Arc<Self>> {
        let database = Database::open(&folder.database())?;
        let folder_id = database.folder_id().to_owned();
        let delivery = Delivery::new(&folder_id, folder.path());
        let state = State {
            database,
            key: None,
            instances: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            ports: Ports::new(&folder_id),
            leases: BTreeMap::new(),
            watchers: BTreeMap::new(),
            snapshots: BTreeMap::new(),
        };
        let supervisor = Arc::new(Self {
            executables: Executables::new(folder.executables()),
            disk: Disk::default(),
            sweeper: Sweeper::new(folder_id.clone()),
            folder,
            folder_id,
            delivery,
            keys,
            state: Mutex::new(state),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            journal,
            takes_orphans: journal && scan::take_orphans().is_ok(),
            _lock: lock,
        });
        if !supervisor.delivery.in_memory() {
            supervisor.note(
                "there is no file system in memory: secrets lie on the disk while instances run",
            );
        }
        supervisor.recover().await?;
        let until_closed = |task: BoxFuture<'static, ()>| {
            supervisor.tasks.spawn(supervisor.closing.clone().run_until_cancelled_owned(task))
        };
        until_closed(Arc::clone(&supervisor).trim_logs().boxed());
        if supervisor.takes_orphans {
            until_closed(Arc::clone(&supervisor).bury_orphans().boxed());
        }
        Ok(supervisor)
    }

    /// Ends every instance, but keeps in mind that they shall run.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Whether it hosts nothing: neither a living instance nor an endpoint.
    pub(crate) fn is_idle(&self) -> bool {
        let state = self.state();
        state.endpoints.is_empty()
            && state.instances.values().all(|hosted| hosted.ended.is_cancelled())
    }

    /// Removes every file of a folder in which nothing is stored but volumes; else leaves all as
    /// it is. Nothing may be asked of the supervisor any more.
    pub(crate) fn clear_if_empty(&self) -> Result<()> {
        if !self.state().database.is_empty()? {
            return Ok(());
        }
        let failed = |e| crate::error::io("remove the state folder", self.folder.path(), e);
        self.delivery.clear().map_err(failed)?;
        let key = Key::path(&self.keys, &self.folder_id);
        if let Err(e) = std::fs::remove_file(&key)
            && e.kind() != std::io::ErrorKind::NotFound
        {
            return Err(crate::error::io("remove the folder's key", &key, e));
        }
        self.folder.clear().map_err(failed)
    }

    /// Says something to whoever runs this. Never a secret.
    fn note(&self, message: impl fmt::Display) {
        if self.journal {
            eprintln!("{message}");
        }
        tracing::warn!(folder = %self.folder.path().display(), "{message}");
    }

    /// Not to be held across an await.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of an instance: stores it where that matters after a restart, and
    /// tells proxies and watchers.
    fn update(&self, hosted: &Hosted, change: impl FnOnce(&mut Live)) {
        let (before, after) = {
            let mut live = hosted.live();
            let before = live.clone();
            change(&mut live);
            (before, live.clone())
        };
        if before == after {
            return;
        }
        let mut state = self.state();
        if before.phase != after.phase
            && let Err(e) = state.database.note_phase(&hosted.spec.id, &after.phase)
        {
            // Recovery goes by the processes' markers where the file does not know better.
            self.note(format_args!("{}: {e}", hosted.spec.id));
        }
        if before.ready != after.ready || before.phase.ports != after.phase.ports {
            state.rebalance(&hosted.app, &hosted.spec.service);
        }
        state.instance_changed(hosted);
    }

    /// The main processes of its instances.
    fn hosted_pids(&self) -> BTreeSet<u32> {
        let pid = |hosted: &Arc<Hosted>| Some(hosted.live().phase.process.as_ref()?.pid);
        self.state().instances.values().filter_map(pid).collect()
    }

    async fn bury_orphans(self: Arc<Self>) {
        let mut ended = BTreeSet::new();
        loop {
            tokio::time::sleep(BURY).await;
            match scan::bury(&self.hosted_pids(), &ended) {
                Ok(now) => ended = now,
                Err(e) => return self.note(format_args!("orphans cannot be looked for: {e}")),
            }
        }
    }

    async fn trim_logs(self: Arc<Self>) {
        let mut told = BTreeSet::new();
        loop {
            tokio::time::sleep(TRIM).await;
            let ids: Vec<String> = self.state().instances.keys().cloned().collect();
            for id in ids {
                for stream in [OutputStream::Stdout, OutputStream::Stderr] {
                    let log = self.folder.log(&id, stream);
                    match logs::trim(&log, logs::KEEP) {
                        Err(e)
                            if e.kind() != std::io::ErrorKind::NotFound
                                && told.insert(log.clone()) =>
                        {
                            self.note(format_args!("{} grows without end: {e}", log.display()));
                        }
                        _ => {}
                    }
                }
            }
        }
    }
}
