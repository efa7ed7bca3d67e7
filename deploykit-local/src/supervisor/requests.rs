//! Requests of clients, one function for all of them.

use std::sync::Arc;

use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, Observation, Result};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::watch;

use super::Supervisor;
use crate::error::BACKEND;
use crate::protocol::{Request, Surroundings, broken};
use crate::secrets::Wire;

impl Supervisor {
    /// Answers a request. Runs to its end even when the client is gone.
    pub(crate) async fn answer(self: &Arc<Self>, request: Request) -> Result<Value> {
        match request {
            Request::Apps => json(self.state().database.apps()),
            Request::Get { app, key } => json(self.state().database.get(&app, &key)),
            Request::List { app, prefix } => json(self.state().database.list(&app, &prefix)),
            Request::Put { fence, key, value, expected } => {
                json(self.state().database.put(&fence, &key, &value, expected))
            }
            Request::Delete { fence, key, version } => json(self.state().database.delete(&fence, &key, version)),
            Request::Acquire { app, holder, ttl } => json(self.acquire(&app, &holder, ttl)),
            Request::Renew { lease, ttl } => json(self.renew(&lease, ttl)),
            Request::Release { lease } => json(self.state().database.release(&lease)),
            Request::PutSecret { app, name, value, only_first } => {
                let value = value.value().ok_or_else(|| broken("a secret's value was cut".into()))?;
                json(self.put_secret(&app, &name, &value, only_first))
            }
            Request::GetSecret { app, name, version } => {
                json(self.secret(&app, &name, version).map(|value| Wire::from(&value)))
            }
            Request::SecretVersions { app, name } => json(self.state().database.secret_versions(&app, &name)),
            Request::ListSecrets { app } => json(self.state().database.secrets(&app)),
            Request::DeleteSecrets { app, name, versions } => {
                json(self.state().database.delete_secrets(&app, &name, &versions))
            }
            Request::Inspect { app } => json(Ok(self.inspect(&app))),
            Request::Watch { .. } => Err(broken("a watch wants a connection of its own".into())),
            Request::EnsureVolume { fence, name } => json(self.ensure_volume(&fence, &name)),
            Request::RemoveVolume { fence, name } => json(self.remove_volume(&fence, &name)),
            Request::EnsureEndpoint { fence, endpoint } => json(self.ensure_endpoint(&fence, &endpoint)),
            Request::RemoveEndpoint { fence, service } => json(self.remove_endpoint(&fence, &service).await),
            Request::Route { fence, service, instances } => json(self.route(&fence, &service, instances)),
            Request::Drain { fence, service, instance, deadline } => {
                json(self.drain(&fence, &service, &instance, deadline).await)
            }
            Request::Start { fence, spec } => json(self.start(&fence, *spec).await),
            Request::Stop { fence, instance } => json(self.stop(&fence, &instance).await),
            Request::Remove { fence, instance } => json(self.remove(&fence, &instance)),
            Request::Collect { fence, digests } => json(self.collect(&fence, digests)),
            Request::Surroundings { app, instance } => json(self.surroundings_of(&app, &instance)),
        }
    }

    /// Tells of each change of an app from now on.
    pub(crate) fn subscribe(&self, app: &AppName) -> watch::Receiver<u64> {
        let mut state = self.state();
        // Nobody listens any more to those of apps that were removed.
        state.watchers.retain(|_, watchers| watchers.receiver_count() > 0);
        state.watchers.entry(app.clone()).or_insert_with(|| watch::channel(0).0).subscribe()
    }

    fn inspect(&self, app: &AppName) -> Observation {
        let state = self.state();
        let instances = state.instances.values().filter(|hosted| hosted.app == *app);
        let endpoints = state.endpoints.iter().filter(|((of, _), _)| of == app);
        Observation {
            instances: instances.map(|hosted| hosted.observe()).collect(),
            endpoints: endpoints.map(|((_, service), served)| (service.clone(), served.observe())).collect(),
            volumes: self.volumes(app),
            networks: Default::default(),
        }
    }

    fn surroundings_of(&self, app: &AppName, instance: &str) -> Result<Surroundings> {
        let hosted = self.state().instances.get(instance).filter(|hosted| hosted.app == *app).cloned();
        let hosted = hosted.ok_or_else(|| {
            let message = format!("there is no instance {instance}");
            Error::new(ErrorKind::NotFound, "run a command beside an instance", message).on(BACKEND).with("app", app)
        })?;
        if hosted.ended.is_cancelled() {
            let message = format!("the instance {instance} has ended");
            let error = Error::new(ErrorKind::Conflict, "run a command beside an instance", message);
            return Err(error.on(BACKEND).with("app", app));
        }
        self.surroundings(&hosted)
    }
}

fn json<T: Serialize>(result: Result<T>) -> Result<Value> {
    serde_json::to_value(result?).map_err(|e| broken(format!("an answer cannot be written: {e}")))
}
