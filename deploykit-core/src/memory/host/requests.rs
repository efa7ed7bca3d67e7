//! Requests to simulated services.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};

use super::{Host, NAME};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, Mount, ServiceName};
use crate::observation::InstanceState;

/// How long a request waits for an instance.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long an instance takes for an answer.
const SERVICE_TIME: Duration = Duration::from_millis(2);

/// The answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Counts a request as in flight for as long as it lives.
struct InFlight<'a> {
    host: &'a Host,
    app: &'a AppName,
    instance: String,
    restarts: u32,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.host.change(self.app, |app| {
            if let Some(sim) = app.instances.get_mut(&self.instance) {
                sim.in_flight = sim.in_flight.saturating_sub(1);
            }
        });
    }
}

impl InFlight<'_> {
    /// Waits until the process that took the request has ended.
    async fn cut(&self) {
        let mut changes = self.host.0.changes.subscribe();
        loop {
            let alive = self.host.read(self.app, |app| {
                let sim = app.instances.get(&self.instance);
                sim.is_some_and(|sim| sim.running() && sim.seen.restarts == self.restarts)
            });
            if !alive || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Host {
    /// Sends a request to a service, as the services beside it do: it is given to one of the
    /// instances that are routed and ready, and waits for one for 10 s. It answers as the test
    /// application does: `GET /` (version and instance as JSON), `/version`, `/instance`, `/env`,
    /// `/args`, `/count`, `/healthz`, `/slow?ms=N`, `/peer?name=S`, `/file?path=P`, and
    /// `PUT /file?path=P`.
    ///
    /// Dropping the future ends the request.
    ///
    /// # Errors
    /// `Unavailable` where no instance comes in time, `Failed` where the instance ends before it
    /// has answered.
    pub async fn request(
        &self,
        app: &AppName,
        service: &ServiceName,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Response> {
        let taken = self.admit(app, service).await?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let slow = match path {
            "/slow" => query.strip_prefix("ms=").and_then(|ms| ms.parse().ok()),
            _ => None,
        };
        tokio::select! {
            () = sleep(slow.map_or(SERVICE_TIME, Duration::from_millis)) => {}
            () = taken.cut() => {
                let message = "the connection was closed before an answer came";
                let error = Error::new(ErrorKind::Failed, "send a request", message).on(NAME);
                return Err(error.with("service", service).with("instance", &taken.instance));
            }
        }
        if path == "/file" {
            let name = query.strip_prefix("path=").unwrap_or_default();
            return self.file(app, &taken.instance, method, name, body).await;
        }
        if path == "/peer" {
            let asked = query.strip_prefix("name=").unwrap_or_default();
            let known = self.read(app, |app| {
                let template = &app.instances.get(&taken.instance)?.spec.template;
                template.peers.get_key_value(asked).map(|(peer, _)| peer.clone())
            });
            return match known {
                Some(peer) => Box::pin(self.request(app, &peer, "GET", "/", "")).await,
                None => Ok(Response { status: 502, body: format!("{asked} is not known") }),
            };
        }
        self.read(app, |app| {
            let instance = &taken.instance;
            let Some(sim) = app.instances.get(instance) else {
                return Ok(Response { status: 502, body: String::new() });
            };
            let version = &sim.dials.version;
            let ok = |body: String| Response { status: 200, body };
            Ok(match path {
                "/" | "/slow" => {
                    let body = serde_json::json!({ "version": version, "instance": instance });
                    ok(body.to_string())
                }
                "/version" => ok(version.clone()),
                "/instance" => ok(instance.clone()),
                "/env" => ok(serde_json::json!(sim.env(app)).to_string()),
                "/args" => ok(serde_json::json!(sim.spec.template.args).to_string()),
                "/count" => ok(sim.served.to_string()),
                "/healthz" => ok("ok".into()),
                _ => Response { status: 404, body: "no such page".into() },
            })
        })
    }

    /// Waits for an instance that takes the request.
    async fn admit<'a>(&'a self, app: &'a AppName, service: &ServiceName) -> Result<InFlight<'a>> {
        let mut changes = self.0.changes.subscribe();
        let deadline = Instant::now() + PATIENCE;
        loop {
            changes.borrow_and_update();
            let taken = self.change_quietly(app, |app| {
                let (_, routed) = app.endpoints.get(service)?;
                let mut takers: Vec<_> = app
                    .instances
                    .iter_mut()
                    .filter(|(id, sim)| {
                        let running = sim.seen.state == InstanceState::Running;
                        running && sim.seen.ready && routed.contains(*id)
                    })
                    .collect();
                let (id, sim) =
                    takers.iter_mut().min_by_key(|(_, sim)| (sim.in_flight, sim.served))?;
                sim.in_flight += 1;
                sim.served += 1;
                Some(((*id).clone(), sim.seen.restarts))
            });
            if let Some((instance, restarts)) = taken {
                return Ok(InFlight { host: self, app, instance, restarts });
            }
            if !matches!(timeout_at(deadline, changes.changed()).await, Ok(Ok(()))) {
                let message = "no instance was ready within 10 s";
                let error = Error::new(ErrorKind::Unavailable, "send a request", message);
                return Err(error.on(NAME).with("app", app).with("service", service));
            }
        }
    }

    /// Reads or writes a file as an instance sees it.
    async fn file(
        &self,
        app: &AppName,
        instance: &str,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Response> {
        let none = Response { status: 404, body: "no such file".into() };
        let Some((folder, name)) = path.trim_start_matches('/').split_once('/') else {
            return Ok(none);
        };
        let found = match folder {
            "secrets" | "$SECRETS_DIR" => {
                let version = self.read(app, |app| {
                    let template = &app.instances.get(instance)?.spec.template;
                    template.secrets.get_key_value(name).map(|(name, v)| (name.clone(), *v))
                });
                let Some((name, version)) = version else { return Ok(none) };
                let value = crate::SecretStore::get(&self.0.secrets, app, &name, version).await?;
                Some(String::from_utf8_lossy(value.expose()).into_owned())
            }
            "configs" | "$CONFIGS_DIR" => self.read(app, |app| {
                let template = &app.instances.get(instance)?.spec.template;
                template.configs.get(name).cloned()
            }),
            "volumes" | "$VOLUMES_DIR" => {
                self.change(app, |app| {
                    let (volume, file) = name.split_once('/')?;
                    let sim = app.instances.get(instance)?;
                    let writable =
                        sim.spec.template.mounts.iter().any(
                            |m| matches!(m, Mount::Volume(m) if m.name == volume && !m.read_only),
                        );
                    let file = sim.volume_file(volume, file)?;
                    let files = app.volumes.get_mut(volume)?;
                    if method == "PUT" && writable {
                        files.insert(file.clone(), body.to_owned());
                    }
                    files.get(&file).cloned()
                })
            }
            _ => None,
        };
        Ok(found.map_or(none, |body| Response { status: 200, body }))
    }

    /// Changes what nobody watches.
    fn change_quietly<T>(
        &self,
        app: &AppName,
        change: impl FnOnce(&mut super::App) -> Option<T>,
    ) -> Option<T> {
        super::lock(&self.0.apps).get_mut(app).and_then(change)
    }
}
