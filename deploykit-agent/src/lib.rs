//! The helper that stands beside services: a draining reverse proxy, a prober, and a keeper of
//! state.
//!
//! * [`proxy::ServiceProxy`] gives a service one stable address and balances over its living
//!   instances, per request for HTTP and per connection for TCP. Instances come and go without a
//!   lost connection.
//! * [`probe::Prober`] asks one instance its startup, readiness and liveness probes: often while it
//!   starts, at the stated interval afterwards.
//! * [`control`] is how a deployer uses both, and the keeper, in an agent that runs in a container:
//!   the program `deploykit-agent`, which needs nothing beside it.
//!
//! Nothing here knows how instances are started: whoever does tells the addresses.
//!
//! Features: `seal` has what a deployer encrypts secrets with, `server` has the agent itself.
pub mod binary;
pub mod control;
mod error;
pub mod probe;
pub mod proxy;
#[cfg(feature = "seal")]
pub mod seal;
#[cfg(feature = "server")]
pub mod server;
pub mod wire;
