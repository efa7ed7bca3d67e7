//! Builders: what is wrong is remembered and reported at the end, all at once.

use std::fmt::Display;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::error::{Error, Problem, Result};

/// Makes an [`App`]; begun with [`App::build`].
#[derive(Clone, Debug)]
pub struct AppBuilder {
    app: Option<App>,
    problems: Vec<Problem>,
}

/// Makes a [`Service`]; begun with [`Service::build`].
#[derive(Clone, Debug)]
pub struct ServiceBuilder {
    name: String,
    service: Service,
    problems: Vec<Problem>,
}

/// Makes a [`Job`]; begun with [`Job::build`].
#[derive(Clone, Debug)]
pub struct JobBuilder {
    name: String,
    job: Job,
    problems: Vec<Problem>,
}

fn parse<T, E: Display>(
    problems: &mut Vec<Problem>,
    path: impl Display,
    parsed: Result<T, E>,
) -> Option<T> {
    parsed.map_err(|e| problems.push(Problem::new(path.to_string(), e.to_string(), ""))).ok()
}

impl App {
    /// Begins an app.
    pub fn build(name: impl Into<String>) -> AppBuilder {
        let mut problems = Vec::new();
        let name = parse(&mut problems, "name", AppName::new(name));
        let placeholder = || AppName::new("app").ok();
        AppBuilder { app: name.or_else(placeholder).map(Self::new), problems }
    }
}

impl AppBuilder {
    fn with(mut self, change: impl FnOnce(&mut App, &mut Vec<Problem>)) -> Self {
        if let Some(app) = &mut self.app {
            change(app, &mut self.problems);
        }
        self
    }

    /// Adds a service, and declares the secrets that it mounts or has routes with.
    pub fn service(self, builder: ServiceBuilder) -> Self {
        self.with(|app, problems| {
            problems.extend(builder.problems);
            let path = format!("services.{}", builder.name);
            let Some(name) = parse(problems, &path, ServiceName::new(builder.name)) else { return };
            declare(app, &builder.service.mounts);
            for port in &builder.service.ports {
                if let Publish::Route(Route { tls: Some(secret), .. }) = &port.publish {
                    app.secrets.entry(secret.clone()).or_default();
                }
            }
            if app.services.insert(name.clone(), builder.service).is_some() {
                problems.push(twice(&path, &name));
            }
        })
    }

    /// Adds a job, and declares the secrets that it mounts.
    pub fn job(self, builder: JobBuilder) -> Self {
        self.with(|app, problems| {
            problems.extend(builder.problems);
            let path = format!("jobs.{}", builder.name);
            let Some(name) = parse(problems, &path, ServiceName::new(builder.name)) else { return };
            declare(app, &builder.job.mounts);
            if app.jobs.insert(name.clone(), builder.job).is_some() {
                problems.push(twice(&path, &name));
            }
        })
    }

    /// Adds a volume.
    pub fn volume(self, name: impl Into<String>, scope: VolumeScope) -> Self {
        self.with(|app, problems| {
            if let Some(name) = parse(problems, "volumes", VolumeName::new(name)) {
                app.volumes.insert(name, Volume { scope });
            }
        })
    }

    /// Adds a config.
    pub fn config(self, name: impl Into<String>, content: impl Into<String>) -> Self {
        self.with(|app, problems| {
            if let Some(name) = parse(problems, "configs", ConfigName::new(name)) {
                app.configs.insert(name, Config { content: content.into() });
            }
        })
    }

    /// Adds a network.
    pub fn network(self, name: impl Into<String>, network: Network) -> Self {
        self.with(|app, problems| {
            if let Some(name) = parse(problems, "networks", NetworkName::new(name)) {
                app.networks.insert(name, network);
            }
        })
    }

    /// Adds an object as the named backend knows it, on Kubernetes a manifest:
    ///
    /// ```
    /// use deploykit_core::model::App;
    /// let widget = serde_json::json!({
    ///     "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": "one" },
    /// });
    /// let app = App::build("shop").raw("k8s", "widget", widget);
    /// ```
    pub fn raw(
        self,
        backend: impl Into<String>,
        name: impl Into<String>,
        object: serde_json::Value,
    ) -> Self {
        self.with(|app, problems| {
            let (backend, name) = (backend.into(), name.into());
            let path = format!("raw.{backend}.{name}");
            let Some(name) = parse(problems, &path, RawName::new(name)) else { return };
            match object {
                serde_json::Value::Object(object) => {
                    app.raw.entry(backend).or_default().insert(name, object);
                }
                _ => problems.push(Problem::new(path, "the object is no mapping", "give one")),
            }
        })
    }

    /// Sets the URL of the registry that services find each other by.
    pub fn registry(self, url: impl Into<String>) -> Self {
        self.with(|app, _| app.registry = Some(url.into()))
    }

    /// Sets how many revisions are kept.
    pub fn keep_revisions(self, keep: u32) -> Self {
        self.with(|app, _| app.keep_revisions = keep)
    }

    /// Lets a service be reached only by those that name it in `connects_to`.
    pub fn isolated(self) -> Self {
        self.with(|app, _| app.isolated = true)
    }

    /// The app.
    ///
    /// # Errors
    /// [`ErrorKind::Invalid`](crate::ErrorKind::Invalid) with every problem.
    pub fn validate(self) -> Result<App> {
        let mut problems = self.problems;
        if let Some(app) = &self.app {
            problems.extend(app.problems());
        }
        match self.app {
            Some(app) if problems.is_empty() => Ok(app),
            _ => Err(Error::invalid("validate the app", problems)),
        }
    }
}

fn twice(path: &str, name: &ServiceName) -> Problem {
    Problem::new(path, format!("`{name}` is there twice"), "give each its own name")
}

fn declare(app: &mut App, mounts: &[Mount]) {
    for mount in mounts {
        if let Mount::Secret(secret) = mount {
            app.secrets.entry(secret.name.clone()).or_default();
        }
    }
}

macro_rules! shared_setters {
    ($builder:ident, $field:ident, $model:ident, $folder:literal) => {
        impl $model {
            /// Begins one that runs `image`.
            pub fn build(name: impl Into<String>, image: ImageSpec) -> $builder {
                $builder { name: name.into(), $field: $model::new(image), problems: Vec::new() }
            }
        }

        impl $builder {
            fn at(&self, rest: &str) -> String {
                format!(concat!($folder, ".{}.{}"), self.name, rest)
            }

            fn name<T, E: Display>(&mut self, path: &str, parsed: Result<T, E>) -> Option<T> {
                let path = self.at(path);
                parse(&mut self.problems, path, parsed)
            }

            /// Adds an argument.
            pub fn arg(mut self, arg: impl Into<String>) -> Self {
                self.$field.args.push(arg.into());
                self
            }

            /// Sets an environment variable.
            pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.$field.env.insert(name.into(), value.into());
                self
            }

            /// Sets the working folder.
            pub fn workdir(mut self, path: impl Into<PathBuf>) -> Self {
                self.$field.workdir = Some(path.into());
                self
            }

            /// Sets the user.
            pub fn user(mut self, user: impl Into<String>) -> Self {
                self.$field.user = Some(user.into());
                self
            }

            /// Sets what an instance may use.
            pub fn resources(mut self, resources: Resources) -> Self {
                self.$field.resources = resources;
                self
            }

            /// Adds a mount.
            pub fn mount(mut self, mount: Mount) -> Self {
                self.$field.mounts.push(mount);
                self
            }

            /// Mounts a volume at its standard place.
            pub fn volume(mut self, name: impl Into<String>) -> Self {
                if let Some(name) = self.name("mounts", VolumeName::new(name)) {
                    let mount = VolumeMount { name, target: None, read_only: false };
                    self.$field.mounts.push(Mount::Volume(mount));
                }
                self
            }

            /// Mounts a secret at its standard place.
            pub fn secret(mut self, name: impl Into<String>) -> Self {
                if let Some(name) = self.name("mounts", SecretName::new(name)) {
                    self.$field.mounts.push(Mount::Secret(SecretMount { name, target: None }));
                }
                self
            }

            /// Mounts a config at its standard place.
            pub fn config(mut self, name: impl Into<String>) -> Self {
                if let Some(name) = self.name("mounts", ConfigName::new(name)) {
                    self.$field.mounts.push(Mount::Config(ConfigMount { name, target: None }));
                }
                self
            }

            /// Waits for another service or job.
            pub fn depends_on(mut self, name: impl Into<String>, condition: Condition) -> Self {
                if let Some(name) = self.name("depends_on", ServiceName::new(name)) {
                    self.$field.depends_on.insert(name, condition);
                }
                self
            }

            /// Sends requests to another service.
            pub fn connects_to(mut self, name: impl Into<String>) -> Self {
                if let Some(name) = self.name("connects_to", ServiceName::new(name)) {
                    self.$field.connects_to.insert(name);
                }
                self
            }

            /// Lets it run under an account of its own in a cluster.
            pub fn service_account(mut self, account: ServiceAccount) -> Self {
                self.$field.service_account = Some(account);
                self
            }

            /// Sets the signal that asks an instance to end.
            pub fn stop_signal(mut self, signal: Signal) -> Self {
                self.$field.stop_signal = signal;
                self
            }

            /// Sets how long it may take to end before it is killed.
            pub fn stop_grace(mut self, grace: Duration) -> Self {
                self.$field.stop_grace = grace;
                self
            }

            /// Sets a label.
            pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.$field.labels.insert(name.into(), value.into());
                self
            }
        }
    };
}
shared_setters!(ServiceBuilder, service, Service, "services");
shared_setters!(JobBuilder, job, Job, "jobs");

impl ServiceBuilder {
    /// Sets the number of instances.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.service.replicas = Replicas::Fixed(replicas);
        self
    }

    /// Asks for one instance on each node.
    pub fn global(mut self) -> Self {
        self.service.replicas = Replicas::Global;
        self
    }

    /// Lets the number of instances follow the load.
    pub fn autoscale(mut self, autoscale: Autoscale) -> Self {
        self.service.replicas = Replicas::Autoscale(autoscale);
        self
    }

    /// Adds a port.
    pub fn port(mut self, port: Port) -> Self {
        self.service.ports.push(port);
        self
    }

    /// Sets the startup probe.
    pub fn startup(mut self, probe: Probe) -> Self {
        self.service.probes.startup = Some(probe);
        self
    }

    /// Sets the readiness probe.
    pub fn readiness(mut self, probe: Probe) -> Self {
        self.service.probes.readiness = Some(probe);
        self
    }

    /// Sets the liveness probe.
    pub fn liveness(mut self, probe: Probe) -> Self {
        self.service.probes.liveness = Some(probe);
        self
    }

    /// Sets how it moves to a new revision.
    pub fn update(mut self, update: Update) -> Self {
        self.service.update = update;
        self
    }

    /// Sets what its name leads to.
    pub fn endpoint_mode(mut self, mode: EndpointMode) -> Self {
        self.service.endpoint_mode = mode;
        self
    }

    /// Sets when an instance that has ended is started again.
    pub fn restart(mut self, restart: RestartPolicy) -> Self {
        self.service.restart = restart;
        self
    }
}

impl JobBuilder {
    /// Runs it again after a failure, this often.
    pub fn retries(mut self, retries: u32) -> Self {
        self.job.retries = retries;
        self
    }

    /// Sets how long it may run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.job.timeout = Some(timeout);
        self
    }

    /// Runs it at these times, as five fields of cron.
    pub fn schedule(mut self, schedule: impl Into<String>) -> Self {
        let schedule: String = schedule.into();
        self.job.schedule = self.name("schedule", schedule.parse());
        self
    }
}
