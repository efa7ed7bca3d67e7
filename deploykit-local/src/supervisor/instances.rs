//! Starting, stopping and removing instances on request.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::{Diagnosis, Error, ErrorKind, Fence, InstanceSpec, Reason, Result};

use super::{Hosted, Supervisor};
use crate::database::{InstanceRow, Phase};
use crate::error::{self, BACKEND};

/// How long an executable is kept that nothing names: somebody may have prepared a plan with it.
const GRACE: Duration = Duration::from_secs(3600);

impl Supervisor {
    /// See [`Runtime::start`](deploykit_core::Runtime::start).
    pub(super) async fn start(self: &Arc<Self>, fence: &Fence, spec: InstanceSpec) -> Result<()> {
        let Some(hosted) = self.admit(fence, spec)? else { return Ok(()) };
        match self.launch_off_thread(&hosted).await {
            Ok(process) => {
                self.started(&hosted, &process);
                self.disk
                    .begin_executable(&self.executables.path(&hosted.spec.template.image.digest));
                self.tasks.spawn(Arc::clone(self).host(hosted, Some(process)));
                Ok(())
            }
            Err(reason) => {
                self.forget(&hosted)?;
                hosted.ended.cancel();
                let spec = &hosted.spec;
                let kind = match reason {
                    Reason::ImageNotFound { .. } | Reason::SecretMissing { .. } => {
                        ErrorKind::NotFound
                    }
                    _ => ErrorKind::Failed,
                };
                let diagnosis = Diagnosis {
                    service: spec.service.clone(),
                    instance: Some(spec.id.clone()),
                    reason,
                };
                Err(Error::new(kind, "start an instance", "it cannot run")
                    .on(BACKEND)
                    .with("app", &fence.app)
                    .with_diagnoses(vec![diagnosis]))
            }
        }
    }

    /// Writes the row; nothing where there is one of that id already.
    fn admit(&self, fence: &Fence, spec: InstanceSpec) -> Result<Option<Arc<Hosted>>> {
        let fits = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '-');
        if spec.id.is_empty() || !spec.id.chars().all(fits) {
            let message = format!("`{}` is no id of an instance; use a-z, 0-9 and -", spec.id);
            return Err(Error::new(ErrorKind::Invalid, "start an instance", message).on(BACKEND));
        }
        let mut state = self.state();
        let ports = if state.instances.contains_key(&spec.id) {
            Vec::new()
        } else {
            state
                .ports
                .take(spec.template.ports.len())
                .map_err(|e| error::io("find a port for an instance", self.folder.path(), e))?
        };
        let row = InstanceRow {
            app: fence.app.clone(),
            spec,
            phase: Phase { ports, ..Phase::default() },
        };
        match state.database.add_instance(fence, &row) {
            Ok(true) => {
                let hosted = Arc::new(Hosted::new(row));
                state.instances.insert(hosted.spec.id.clone(), Arc::clone(&hosted));
                state.instance_changed(&hosted);
                Ok(Some(hosted))
            }
            Ok(false) => Ok(None),
            Err(e) => {
                state.ports.release(&row.phase.ports);
                Err(e)
            }
        }
    }

    /// Undoes what [`admit`](Self::admit) did, for one that never ran.
    fn forget(&self, hosted: &Hosted) -> Result<()> {
        let mut state = self.state();
        state.instances.remove(&hosted.spec.id);
        state.ports.release(&hosted.phase().ports);
        state.database.forget_instance(&hosted.spec.id)?;
        state.instance_changed(hosted);
        drop(state);
        self.remove_files(&hosted.spec.id)
    }

    /// See [`Runtime::stop`](deploykit_core::Runtime::stop).
    pub(super) async fn stop(&self, fence: &Fence, id: &str) -> Result<()> {
        let hosted = {
            let mut state = self.state();
            let Some(hosted) = state.instances.get(id).cloned() else {
                return state.database.check_fence(fence);
            };
            let mut phase = hosted.phase();
            phase.stopped = true;
            state.database.note_stop(fence, id, &phase)?;
            hosted.live().phase.stopped = true;
            hosted
        };
        hosted.stop.cancel();
        hosted.ended.cancelled().await;
        Ok(())
    }

    /// See [`Runtime::remove`](deploykit_core::Runtime::remove).
    pub(super) fn remove(&self, fence: &Fence, id: &str) -> Result<()> {
        {
            let mut state = self.state();
            let Some(hosted) = state.instances.get(id).cloned() else {
                return state.database.check_fence(fence);
            };
            if !hosted.ended.is_cancelled() {
                let message = format!("the instance {id} still runs; stop it first");
                return Err(
                    Error::new(ErrorKind::Conflict, "remove an instance", message).on(BACKEND)
                );
            }
            state.database.remove_instance(fence, id)?;
            state.instances.remove(id);
            state.ports.release(&hosted.phase().ports);
            state.instance_changed(&hosted);
        }
        self.remove_files(id)
    }

    /// See [`Runtime::collect`](deploykit_core::Runtime::collect).
    pub(super) fn collect(&self, fence: &Fence, named: BTreeSet<String>) -> Result<()> {
        let mut keep = named;
        for digest in &keep {
            self.disk.begin_executable(&self.executables.path(digest));
        }
        {
            let mut state = self.state();
            state.database.check_fence(fence)?;
            keep.extend(
                state.instances.values().map(|hosted| hosted.spec.template.image.digest.clone()),
            );
        }
        self.executables
            .collect(&keep, GRACE)
            .map(|_| ())
            .map_err(|e| error::io("collect executables", &self.folder.executables(), e))
    }
}
