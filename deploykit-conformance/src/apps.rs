//! The services that behaviours deploy.

use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::{ImageSpec, Job, JobBuilder, Port, Probe, Service, ServiceBuilder};

use crate::testapp::WORD;

/// The declared port of every service.
pub const PORT: u16 = 8080;

/// A service that runs the test application from `image`, calls itself `version`, is published,
/// and has a readiness probe.
pub fn service(name: &str, image: &ImageSpec, version: &str) -> ServiceBuilder {
    Service::build(name, image.clone())
        .arg(WORD)
        .env(dial::VERSION, version)
        .port(Port::http(PORT).public())
        .readiness(readiness())
        .stop_grace(Duration::from_secs(5))
}

/// A job that runs the test application from `image`, and ends.
pub fn job(name: &str, image: &ImageSpec) -> JobBuilder {
    Job::build(name, image.clone())
        .arg(WORD)
        .env(dial::EXIT_AFTER_MS, "50")
        .timeout(Duration::from_secs(60))
}

/// A probe that is quick to see what is wrong.
pub fn readiness() -> Probe {
    Probe::http("/healthz").interval(Duration::from_millis(200))
}
