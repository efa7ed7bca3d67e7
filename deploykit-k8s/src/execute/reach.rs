//! Waiting until a published address takes connections: nodes hear of an instance a moment after it
//! is ready, and a load balancer gets its address when its provider has made it.

use std::io::ErrorKind as Io;
use std::time::Duration;

use deploykit_core::model::{Address, Port, Protocol, Publish};
use deploykit_core::{Diagnosis, ErrorKind, Reason, Result};
use k8s_openapi::api::core::v1::Service;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::Work;
use crate::error::error;
use crate::observe;

/// How long nodes may take to hear of an instance.
const HEARING: Duration = Duration::from_secs(10);
/// How long one connection may take.
const CONNECTING: Duration = Duration::from_secs(1);
/// How often it is tried.
const PAUSE: Duration = Duration::from_millis(50);

/// Waits until every TCP port that is published has an address, for `patience` at the longest, and
/// where that is in reach of this program, until it takes connections.
pub(super) async fn published(work: &Work<'_>, patience: Duration) -> Result<()> {
    let Some(spec) = work.context.target.endpoint(work.name) else { return Ok(()) };
    let wanted = |port: &&Port| port.publish == Publish::Public && port.protocol != Protocol::Udp;
    let wanted: Vec<u16> = spec.ports.iter().filter(wanted).map(|port| port.port).collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let name = crate::labels::service_object(&work.context.fence.app, work.name);
    let begun = Instant::now();
    loop {
        let service = work.cluster.get::<Service>("look for the address", &name).await?;
        let pods = work.view.look(|live| live.pods.of(work.name)).await?;
        if pods.is_empty() {
            return Ok(());
        }
        let endpoint = service.as_ref().and_then(|service| observe::endpoint(service, &pods));
        let ports = endpoint.iter().flat_map(|(_, endpoint)| &endpoint.ports);
        let addresses: Vec<&Address> = ports
            .filter(|port| wanted.contains(&port.declared))
            .filter_map(|port| port.public.as_ref())
            .collect();
        let missing = addresses.len() < wanted.len();
        if missing && begun.elapsed() >= patience {
            return Err(no_address(work));
        }
        if !missing && (begun.elapsed() >= HEARING || none_refuses(&addresses).await) {
            return Ok(());
        }
        sleep(PAUSE).await;
    }
}

/// Whether no address refuses connections. One that is out of reach from here tells nothing.
async fn none_refuses(addresses: &[&Address]) -> bool {
    for address in addresses {
        let connecting = TcpStream::connect((address.host.as_str(), address.port));
        if let Ok(Err(cause)) = timeout(CONNECTING, connecting).await
            && matches!(cause.kind(), Io::ConnectionRefused | Io::ConnectionReset)
        {
            return false;
        }
    }
    true
}

fn no_address(work: &Work<'_>) -> deploykit_core::Error {
    let message = "the cluster has given it no public address; see the events of the Service, or \
                   publish it by ?public=node_port";
    let reason = Reason::Slow { message: message.to_owned() };
    let diagnosis = Diagnosis { service: work.name.clone(), instance: None, reason };
    error(ErrorKind::Failed, "publish the service", message)
        .with("service", work.name)
        .with_diagnoses(vec![diagnosis])
}
