//! Build, deploy and operate multi-service applications from Rust: one model and one set of
//! traits, with backends that plug in.
//!
//! ```no_run
//! use deploykit::model::{App, ImageSpec, Port, Probe, Service};
//! use deploykit::{Change, progress};
//!
//! #[tokio::main]
//! async fn main() -> deploykit::Result<()> {
//!     deploykit::init(); // lets this program serve as its own supervisor
//!     let deployer = deploykit::open("local://").await?;
//!     let web = Service::build("web", ImageSpec::binary("target/release/web"))
//!         .replicas(3)
//!         .port(Port::http(8080).public())
//!         .readiness(Probe::http("/healthz"));
//!     let app = App::build("shop").service(web).validate()?;
//!     let ready = deployer.prepare(app).await?;
//!     let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
//!     println!("{plan}");
//!     deployer.apply(plan, &mut progress::terminal()).await?;
//!     Ok(())
//! }
//! ```
//!
//! Everything of [`deploykit_core`] is re-exported here; a backend is chosen by its URL in [`open`].

mod open;
pub mod progress;

#[cfg(feature = "compose")]
pub use deploykit_compose as compose;
pub use deploykit_core::*;
#[cfg(feature = "docker")]
pub use deploykit_docker as docker;
#[cfg(feature = "k8s")]
pub use deploykit_k8s as k8s;
#[cfg(feature = "local")]
pub use deploykit_local as local;
#[cfg(feature = "oci")]
pub use deploykit_oci as oci;
#[cfg(any(feature = "dns", feature = "etcd", feature = "zookeeper"))]
pub use deploykit_registry as registry;
pub use open::open;

/// Lets this program serve as the supervisor of the local backend: call it first in `main`, before
/// any thread is started.
///
/// In the process of a supervisor it does not return. Without it, a detached deploy on `local://`
/// is refused.
pub fn init() {
    #[cfg(feature = "local")]
    deploykit_local::init();
}
