//! The registry that `DEPLOYKIT_REGISTRY` names, where it names one: the services register
//! themselves there, and find each other.

use std::sync::Arc;
use std::time::Duration;

use deploykit::Registered;
use deploykit::model::{Address, ServiceName};
// As `deploykit::registry` it is there with a feature of a registry only; here it says itself what
// is not compiled in.
use deploykit_registry::{Balancer, Coordinator, Policy, ServiceRegistry};

use crate::Result;
use crate::http::variable;

const VARIABLE: &str = "DEPLOYKIT_REGISTRY";
/// For how long a service that has died is still believed to live, where the registry allows that.
pub const TTL: Duration = Duration::from_secs(3);

/// The URL of the registry.
pub fn url() -> Option<String> {
    std::env::var(VARIABLE).ok().filter(|url| !url.is_empty())
}

/// The registry; none where the environment names none.
pub async fn open() -> Result<Option<Arc<dyn ServiceRegistry>>> {
    match url() {
        Some(url) => Ok(Some(deploykit_registry::open(&url).await.map_err(of_variable)?)),
        None => Ok(None),
    }
}

/// What shares are agreed on by; none where the environment names none.
pub async fn coordinator() -> Result<Option<Arc<dyn Coordinator>>> {
    match url() {
        Some(url) => Ok(Some(deploykit_registry::coordinator(&url).await.map_err(of_variable)?)),
        None => Ok(None),
    }
}

fn of_variable(error: deploykit::Error) -> String {
    format!("{VARIABLE}: {error}")
}

/// The instances of another service.
pub async fn follow(registry: &dyn ServiceRegistry, service: &str) -> Result<Balancer> {
    Ok(Balancer::watch(registry, &ServiceName::new(service)?, Policy::RoundRobin).await?)
}

/// This process as others find it. One that is started again in its place is another one.
pub fn me(service: &str) -> Result<Registered> {
    let mut start = [0; 4];
    aws_lc_rs::rand::fill(&mut start).map_err(|_| "the system has no random numbers")?;
    let id = format!("{}-{:08x}", variable("DEPLOYKIT_INSTANCE")?, u32::from_le_bytes(start));
    let address = Address { host: variable("ADVERTISE_HOST")?, port: variable("PORT")?.parse()? };
    Ok(Registered::new(ServiceName::new(service)?, id, address))
}
