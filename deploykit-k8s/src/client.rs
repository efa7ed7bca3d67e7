//! Connections to the API server.
//!
//! kube's own client speaks HTTP/1.1 alone: each call that is on its way has a connection, and a
//! handshake, of its own. Where the server speaks HTTP/2, calls share one. What lasts (watches,
//! logs, commands) stays on connections of its own: the server takes only so many at once on one,
//! and a call must not wait until one of them ends.

use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::ConfigExt;
use kube::{Client, Config};
use tower::{BoxError, ServiceBuilder};

/// How often a connection in use is asked whether the server is still there.
const ALIVE: Duration = Duration::from_secs(10);

/// A client for what lasts, and one for calls.
pub(crate) fn connect(config: Config) -> kube::Result<(Client, Client)> {
    let lasting = Client::try_from(config.clone())?;
    // A program that gives credentials is not to be run for each client.
    let is_plain = config.proxy_url.is_none()
        && config.tls_server_name.is_none()
        && config.auth_info.exec.is_none();
    if !is_plain {
        return Ok((lasting.clone(), lasting));
    }
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(config.connect_timeout);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(tcp);
    let http = Http::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(ALIVE)
        .http2_keep_alive_timeout(ALIVE)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok((lasting, Client::new(service, config.default_namespace)))
}
