//! Requests of clients, one function for all of them.

use std::sync::Arc;

use deploykit_agent::wire::{Frame, SecretText, encode_answer};
use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, Result};
use tokio::sync::watch;

use super::Supervisor;
use crate::changes::Changes;
use crate::error::BACKEND;
use crate::protocol::{Request, Surroundings, broken};

impl Supervisor {
    /// Answers a request. Runs to its end even when the client is gone.
    pub(crate) async fn answer(self: &Arc<Self>, id: u64, request: Request) -> Frame {
        match request {
            Request::Apps => encode_answer(id, &self.state().database.apps()),
            Request::Get { app, key } => encode_answer(id, &self.state().database.get(&app, &key)),
            Request::Keys { app, prefix } => {
                encode_answer(id, &self.state().database.keys(&app, &prefix))
            }
            Request::Put { fence, key, value, expected } => {
                encode_answer(id, &self.put(&fence, &key, &value, expected).await)
            }
            Request::Delete { fence, key, version } => {
                encode_answer(id, &self.state().database.delete(&fence, &key, version))
            }
            Request::Renew { lease, ttl } => encode_answer(id, &self.renew(&lease, ttl)),
            Request::Release { lease } => encode_answer(id, &self.state().database.release(&lease)),
            Request::PutSecret { app, name, value, only_first } => {
                let put = self.put_secret(&app, &name, &value.value(), only_first);
                encode_answer(id, &put)
            }
            Request::GetSecret { app, name, version } => encode_answer(
                id,
                &self.secret(&app, &name, version).map(|value| SecretText::from(&value)),
            ),
            Request::SecretVersions { app, name } => {
                encode_answer(id, &self.state().database.secret_versions(&app, &name))
            }
            Request::ListSecrets { app } => encode_answer(id, &self.state().database.secrets(&app)),
            Request::DeleteSecrets { app, name, versions } => {
                encode_answer(id, &self.state().database.delete_secrets(&app, &name, &versions))
            }
            Request::Inspect { app, since } => encode_answer(id, &Ok(self.inspect(&app, since))),
            Request::Watch { .. } | Request::Acquire { .. } => encode_answer(
                id,
                &Err::<(), _>(broken("this request is answered by the connection that it came on")),
            ),
            Request::EnsureVolume { fence, name } => {
                encode_answer(id, &self.ensure_volume(&fence, &name))
            }
            Request::RemoveVolume { fence, name } => {
                encode_answer(id, &self.remove_volume(&fence, &name))
            }
            Request::EnsureEndpoint { fence, endpoint } => {
                encode_answer(id, &self.ensure_endpoint(&fence, &endpoint))
            }
            Request::RemoveEndpoint { fence, service } => {
                encode_answer(id, &self.remove_endpoint(&fence, &service).await)
            }
            Request::Route { fence, service, instances } => {
                encode_answer(id, &self.route(&fence, &service, instances))
            }
            Request::Drain { fence, service, instance, deadline } => {
                encode_answer(id, &self.drain(&fence, &service, &instance, deadline).await)
            }
            Request::Start { fence, spec } => encode_answer(id, &self.start(&fence, *spec).await),
            Request::Stop { fence, instance } => {
                encode_answer(id, &self.stop(&fence, &instance).await)
            }
            Request::Remove { fence, instance } => {
                encode_answer(id, &self.remove(&fence, &instance))
            }
            Request::Collect { fence, digests } => {
                encode_answer(id, &self.collect(&fence, digests))
            }
            Request::Surroundings { app, instance } => {
                encode_answer(id, &self.surroundings_of(&app, &instance))
            }
        }
    }

    /// Tells of each change of an app from now on.
    pub(crate) fn subscribe(&self, app: &AppName) -> watch::Receiver<u64> {
        let mut state = self.state();
        // Nobody listens any more to those of apps that were removed.
        state.watchers.retain(|_, watchers| watchers.receiver_count() > 0);
        state.watchers.entry(app.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    fn inspect(&self, app: &AppName, since: Option<u64>) -> Changes {
        let volumes = self.volumes(app);
        let mut state = self.state();
        let snapshot = state.snapshot(app);
        let look = snapshot.look(volumes, since);
        if snapshot.is_empty() {
            state.snapshots.remove(app);
        }
        look
    }

    fn surroundings_of(&self, app: &AppName, instance: &str) -> Result<Surroundings> {
        let hosted =
            self.state().instances.get(instance).filter(|hosted| hosted.app == *app).cloned();
        let hosted = hosted.ok_or_else(|| {
            let message = format!("there is no instance {instance}");
            Error::new(ErrorKind::NotFound, "run a command beside an instance", message)
                .on(BACKEND)
                .with("app", app)
        })?;
        if hosted.ended.is_cancelled() {
            let message = format!("the instance {instance} has ended");
            let error =
                Error::new(ErrorKind::Conflict, "run a command beside an instance", message);
            return Err(error.on(BACKEND).with("app", app));
        }
        self.surroundings(&hosted)
    }
}
