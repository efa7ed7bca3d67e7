//! The blog as an app: what a deploy tool of one's own would hold.

use std::time::Duration;

use deploykit::model::{
    App, Condition, ImageSpec, Job, Port, Probe, Replicas, Service, ServiceBuilder, ServiceName,
    Update, VolumeScope,
};

use crate::registry;

/// The name of the app.
pub const APP: &str = "blog";
/// The secret that session tokens are signed with.
pub const SESSION_KEY: &str = "session-key";

const PORT: u16 = 8080;

/// What differs between the releases of the blog.
#[derive(Clone, Debug, clap::Args)]
pub struct Release {
    /// The version of the posts service.
    #[arg(long, default_value_t = 1)]
    pub version: u32,
    /// How many instances of it there are.
    #[arg(long, default_value_t = 2)]
    pub replicas: u32,
    /// Makes its readiness probe fail, for this reason.
    #[arg(long)]
    pub unhealthy: Option<String>,
}

impl Release {
    /// The first release.
    pub fn first() -> Self {
        Self { version: 1, replicas: 2, unhealthy: None }
    }

    /// The app of this release.
    pub fn app(&self) -> deploykit::Result<App> {
        let update = Update::rolling()
            .surge(1)
            .monitor(Duration::from_millis(300))
            .progress_deadline(Duration::from_secs(15));
        let mut posts = service("posts")
            .replicas(self.replicas)
            .env("VERSION", self.version.to_string())
            .depends_on("store", Condition::Healthy)
            .secret(SESSION_KEY)
            .update(update);
        if let Some(why) = &self.unhealthy {
            posts = posts.env("UNHEALTHY", why);
        }
        let mut store = service("store").volume("data").depends_on("migrate", Condition::Completed);
        let mut app = App::build(APP);
        if let Some(url) = registry::url() {
            app = app.registry(url);
            // They share the data, and no two ever own the same of it.
            store = store.replicas(3);
        } else {
            // A database file has one owner: the old one ends before the new one starts.
            store = store.update(Update::recreate());
        }
        app.volume("data", VolumeScope::Shared)
            .config("site-title", "A blog on DeployKit\n")
            .job(Job::build("migrate", program()).arg("migrate").volume("data"))
            .service(store)
            .service(service("users").depends_on("store", Condition::Healthy).secret(SESSION_KEY))
            .service(
                service("comments").depends_on("store", Condition::Healthy).secret(SESSION_KEY),
            )
            .service(posts)
            .service(
                Service::build("gateway", program())
                    .arg("gateway")
                    .replicas(2)
                    .port(Port::http(PORT).public())
                    .readiness(Probe::http("/healthz"))
                    .config("site-title")
                    .depends_on("users", Condition::Healthy)
                    .depends_on("posts", Condition::Healthy)
                    .depends_on("comments", Condition::Healthy),
            )
            .validate()
    }
}

/// The services of an app, and how many instances of each there shall be.
pub fn wanted(app: &App) -> impl Iterator<Item = (&ServiceName, u32)> {
    app.services.iter().map(|(name, service)| match service.replicas {
        Replicas::Fixed(replicas) => (name, replicas),
        // The blog has no other.
        _ => (name, 0),
    })
}

/// A service that other services of the blog call.
fn service(name: &str) -> ServiceBuilder {
    Service::build(name, program())
        .arg(name)
        .port(Port::http(PORT))
        .readiness(Probe::http("/healthz"))
}

/// Every service is this program.
fn program() -> ImageSpec {
    // Where the program's own path cannot be told, the name that it was called by has to do.
    let called = || std::env::args_os().next().unwrap_or_default().into();
    ImageSpec::binary(std::env::current_exe().unwrap_or_else(|_| called()))
}
