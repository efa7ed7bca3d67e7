//! The helper that stands beside services: a draining reverse proxy and a prober.
//!
//! * [`proxy::ServiceProxy`] gives a service one stable address and balances over its living
//!   instances, per request for HTTP and per connection for TCP. Instances come and go without a
//!   lost connection.
//! * [`probe::Prober`] asks one instance its startup, readiness and liveness probes: often while it
//!   starts, at the stated interval afterwards.
//!
//! Nothing here knows how instances are started: whoever does tells the addresses.
pub mod probe;
pub mod proxy;
