//! The helper that stands beside services: a draining reverse proxy and a prober.
//!
//! * [`proxy::ServiceProxy`] gives a service one stable address and balances over its living
//!   instances, per request for HTTP and per connection for TCP. Instances come and go without a
//!   lost connection.
//!
//! Nothing here knows how instances are started: whoever does tells the proxy the addresses.
pub mod proxy;
