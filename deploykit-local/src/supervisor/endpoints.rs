//! Stable addresses: a proxy for each port of each service.

use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use deploykit_agent::proxy::{BackendAddress, Mode, ServiceProxy};
use deploykit_core::model::{Address, AppName, Port, Protocol, Publish, ServiceName};
use deploykit_core::{
    Diagnosis, Endpoint, EndpointPort, EndpointSpec, Error, ErrorKind, Fence, Reason, Result,
    SpecHash,
};
use futures_util::future::join_all;

use super::{State, Supervisor};
use crate::addresses::{LOOPBACK, TRIES, service_address};
use crate::database::EndpointRow;
use crate::error::BACKEND;

/// How long requests in flight may take to end when an endpoint is removed.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
/// How often an address is tried again that was ours before the supervisor was started anew.
const BIND_AGAIN: Duration = Duration::from_millis(250);

/// An endpoint that is served.
#[derive(Debug)]
pub(crate) struct Served {
    spec: EndpointSpec,
    hash: SpecHash,
    ports: Vec<EndpointPort>,
    routed: BTreeSet<String>,
    listeners: Vec<Listener>,
}

/// One address that requests come to.
#[derive(Debug)]
struct Listener {
    declared: u16,
    mode: Mode,
    address: SocketAddr,
    /// Absent while the address cannot be had back.
    proxy: Option<Arc<ServiceProxy>>,
}

impl Listener {
    fn bind(port: &Port, address: SocketAddr) -> io::Result<Self> {
        let mode = mode(port);
        let proxy = ServiceProxy::bind(address, mode)?;
        Ok(Self {
            declared: port.port,
            mode,
            address: proxy.address(),
            proxy: Some(Arc::new(proxy)),
        })
    }

    fn address(&self) -> Address {
        Address { host: self.address.ip().to_string(), port: self.address.port() }
    }
}

fn mode(port: &Port) -> Mode {
    if port.protocol == Protocol::Http { Mode::Http } else { Mode::Tcp }
}

impl Served {
    /// What is reported of it.
    pub(super) fn observe(&self) -> Endpoint {
        Endpoint { hash: self.hash.clone(), ports: self.ports.clone(), routed: self.routed.clone() }
    }

    fn proxies(&self) -> Vec<Arc<ServiceProxy>> {
        self.listeners.iter().filter_map(|listener| listener.proxy.clone()).collect()
    }
}

impl State {
    /// Where services of the app reach a port of a service.
    pub(super) fn address_of(
        &self,
        app: &AppName,
        service: &ServiceName,
        declared: u16,
    ) -> Option<Address> {
        let served = self.endpoints.get(&(app.clone(), service.clone()))?;
        served.ports.iter().find(|port| port.declared == declared).map(|port| port.address.clone())
    }

    /// Tells the proxies of a service who takes new requests: who is routed and ready.
    pub(super) fn rebalance(&self, app: &AppName, service: &ServiceName) {
        let Some(served) = self.endpoints.get(&(app.clone(), service.clone())) else { return };
        let backends: Vec<_> = served
            .routed
            .iter()
            .filter_map(|id| self.instances.get(id))
            .filter(|hosted| hosted.app == *app && hosted.live().ready)
            .collect();
        for listener in &served.listeners {
            if let Some(proxy) = &listener.proxy {
                let address = |hosted: &&Arc<super::Hosted>| {
                    Some(BackendAddress::new(
                        hosted.spec.id.clone(),
                        hosted.address(listener.declared)?,
                    ))
                };
                proxy.set_backends(backends.iter().filter_map(address));
            }
        }
    }
}

impl Supervisor {
    /// See [`Runtime::ensure_endpoint`](deploykit_core::Runtime::ensure_endpoint).
    pub(super) fn ensure_endpoint(&self, fence: &Fence, spec: &EndpointSpec) -> Result<()> {
        let mut state = self.state();
        let key = (fence.app.clone(), spec.service.clone());
        if state.endpoints.get(&key).is_some_and(|served| served.spec == *spec) {
            return state.database.check_fence(fence);
        }
        let before = state.endpoints.remove(&key);
        let served = match self.bind(fence, spec, before.as_ref()) {
            Ok(served) => served,
            Err(e) => {
                state.endpoints.extend(before.map(|before| (key, before)));
                return Err(e);
            }
        };
        let row = EndpointRow {
            app: fence.app.clone(),
            spec: spec.clone(),
            ports: served.ports.clone(),
            routed: served.routed.clone(),
        };
        if let Err(e) = state.database.put_endpoint(fence, &row) {
            state.endpoints.extend(before.map(|before| (key, before)));
            return Err(e);
        }
        state.endpoints.insert(key.clone(), served);
        state.rebalance(&fence.app, &spec.service);
        state.endpoint_changed(&key);
        Ok(())
    }

    /// Binds what is new; a port that was served before keeps its listeners and its addresses.
    fn bind(&self, fence: &Fence, spec: &EndpointSpec, before: Option<&Served>) -> Result<Served> {
        let mut listeners = Vec::new();
        let mut ports = Vec::new();
        let host = before.and_then(|served| served.ports.first()?.address.host.parse().ok());
        let keep = |address: &Address, mode: Mode| {
            let same =
                |l: &&Listener| l.address() == *address && l.mode == mode && l.proxy.is_some();
            let kept = before?.listeners.iter().find(same)?;
            Some(Listener { proxy: kept.proxy.clone(), ..*kept })
        };
        for port in &spec.ports {
            let known =
                before.and_then(|served| served.ports.iter().find(|p| p.declared == port.port));
            let inner = match known.and_then(|known| keep(&known.address, mode(port))) {
                Some(kept) => kept,
                None => self
                    .bind_inner(fence, spec, port, host)
                    .map_err(|e| taken(fence, spec, port.port, &e))?,
            };
            let kept = known
                .filter(|known| known.publish == port.publish)
                .and_then(|known| known.public.as_ref());
            let outer = match kept.and_then(|address| keep(address, mode(port))) {
                Some(kept) => Some(kept),
                None => bind_outer(fence, spec, port)?,
            };
            ports.push(EndpointPort {
                declared: port.port,
                address: inner.address(),
                publish: port.publish.clone(),
                public: outer.as_ref().map(Listener::address),
            });
            listeners.push(inner);
            listeners.extend(outer);
        }
        let routed = before.map(|served| served.routed.clone()).unwrap_or_default();
        let hash = SpecHash::of_endpoint(spec);
        Ok(Served { spec: spec.clone(), hash, ports, routed, listeners })
    }

    /// An address of the service's own with the declared port; where none can be had, the first
    /// with a port of the system's choice.
    fn bind_inner(
        &self,
        fence: &Fence,
        spec: &EndpointSpec,
        port: &Port,
        host: Option<std::net::IpAddr>,
    ) -> io::Result<Listener> {
        let own = |attempt| service_address(&self.folder_id, &fence.app, &spec.service, attempt);
        let candidates: Vec<_> = match host {
            Some(host) => vec![host],
            None => (0..TRIES).map(own).collect(),
        };
        for candidate in &candidates {
            if let Ok(listener) = Listener::bind(port, SocketAddr::new(*candidate, port.port)) {
                return Ok(listener);
            }
        }
        Listener::bind(port, SocketAddr::new(candidates.first().copied().unwrap_or(LOOPBACK), 0))
    }

    /// See [`Runtime::remove_endpoint`](deploykit_core::Runtime::remove_endpoint).
    pub(super) async fn remove_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        let served = {
            let mut state = self.state();
            state.database.remove_endpoint(fence, service)?;
            let key = (fence.app.clone(), service.clone());
            let served = state.endpoints.remove(&key);
            state.endpoint_changed(&key);
            served
        };
        let listeners = served.map(|served| served.listeners).unwrap_or_default();
        let proxies = listeners.into_iter().filter_map(|listener| Arc::into_inner(listener.proxy?));
        join_all(proxies.map(|proxy| proxy.shutdown(LAST_REQUESTS))).await;
        Ok(())
    }

    /// See [`Runtime::route`](deploykit_core::Runtime::route).
    pub(super) fn route(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instances: BTreeSet<String>,
    ) -> Result<()> {
        let mut state = self.state();
        let key = (fence.app.clone(), service.clone());
        match state.endpoints.get(&key) {
            // A service without ports has no endpoint, and nothing to route.
            None => return state.database.check_fence(fence),
            Some(served) if served.routed == instances => return state.database.check_fence(fence),
            Some(_) => state.database.route(fence, service, &instances)?,
        }
        if let Some(served) = state.endpoints.get_mut(&key) {
            served.routed = instances;
        }
        state.rebalance(&fence.app, service);
        state.endpoint_changed(&key);
        Ok(())
    }

    /// See [`Runtime::drain`](deploykit_core::Runtime::drain).
    pub(super) async fn drain(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        let proxies = {
            let mut state = self.state();
            state.database.check_fence(fence)?;
            let served = state.endpoints.get(&(fence.app.clone(), service.clone()));
            served.map(Served::proxies).unwrap_or_default()
        };
        let left = join_all(proxies.iter().map(|proxy| proxy.drain(instance, deadline))).await;
        Ok(left.iter().all(|left| *left == 0))
    }

    /// Serves an endpoint of an earlier supervisor at the addresses that its instances know.
    pub(super) fn serve_again(&self, row: EndpointRow) {
        let mut listeners = Vec::new();
        for (port, stored) in row.spec.ports.iter().zip(&row.ports) {
            for address in [Some(&stored.address), stored.public.as_ref()].into_iter().flatten() {
                let Ok(ip) = address.host.parse() else { continue };
                let (declared, address) = (port.port, SocketAddr::new(ip, address.port));
                listeners.push(Listener { declared, mode: mode(port), address, proxy: None });
            }
        }
        let hash = SpecHash::of_endpoint(&row.spec);
        let EndpointRow { spec, ports, routed, .. } = row;
        let served = Served { spec, hash, ports, routed, listeners };
        let service = served.spec.service.clone();
        self.state().endpoints.insert((row.app, service), served);
    }

    /// Binds addresses that an earlier supervisor had until all are ours again.
    pub(super) async fn bind_again(self: Arc<Self>) {
        let mut told = false;
        while !self.bind_missing(&mut told) {
            tokio::time::sleep(BIND_AGAIN).await;
        }
    }

    fn bind_missing(&self, told: &mut bool) -> bool {
        let mut all = true;
        let mut state = self.state();
        let keys: Vec<_> = state.endpoints.keys().cloned().collect();
        for (app, service) in keys {
            let Some(served) = state.endpoints.get_mut(&(app.clone(), service.clone())) else {
                continue;
            };
            for listener in served.listeners.iter_mut().filter(|listener| listener.proxy.is_none())
            {
                match ServiceProxy::bind(listener.address, listener.mode) {
                    Ok(proxy) => listener.proxy = Some(Arc::new(proxy)),
                    Err(e) => {
                        all = false;
                        if !*told {
                            self.note(format_args!(
                                "{service}: {} cannot be bound again: {e}",
                                listener.address
                            ));
                        }
                    }
                }
            }
            state.rebalance(&app, &service);
        }
        *told = true;
        all
    }
}

/// The address that callers outside of the app use.
fn bind_outer(fence: &Fence, spec: &EndpointSpec, port: &Port) -> Result<Option<Listener>> {
    let at = |number| Listener::bind(port, SocketAddr::new(LOOPBACK, number));
    match &port.publish {
        Publish::Internal => Ok(None),
        Publish::HostPort(number) => {
            at(*number).map(Some).map_err(|e| taken(fence, spec, *number, &e))
        }
        Publish::Public => at(port.port)
            .or_else(|_| at(0))
            .map(Some)
            .map_err(|e| taken(fence, spec, port.port, &e)),
        other => {
            let message = format!("{other:?} cannot be published on this backend");
            Err(Error::new(ErrorKind::Unsupported, "make an endpoint", message).on(BACKEND))
        }
    }
}

fn taken(fence: &Fence, spec: &EndpointSpec, port: u16, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Unauthorized,
        _ => ErrorKind::AlreadyExists,
    };
    let message =
        format!("the port {port} cannot be had: {error}; end who has it, or choose another");
    let reason = Reason::PortTaken { port, message: error.to_string() };
    Error::new(kind, "make an endpoint", message)
        .on(BACKEND)
        .with("app", &fence.app)
        .with("service", &spec.service)
        .with_diagnoses(vec![Diagnosis { service: spec.service.clone(), instance: None, reason }])
}
