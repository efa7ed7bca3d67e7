//! The stable addresses of services: a proxy container for each.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use bollard::models::{PortBinding, PortMap};
use deploykit_agent::control::{Client, Listener, Report, Target};
use deploykit_agent::proxy::Mode;
use deploykit_core::model::{Address, AppName, Protocol, Publish, ServiceName};
use deploykit_core::{
    Diagnosis, EndpointPort, EndpointSpec, Error, ErrorKind, Fence, Reason, Result, SpecHash,
};

use crate::agent;
use crate::engine::Turn;
use crate::error::{Mapped as _, error};
use crate::names::{self, Role};
use crate::runtime::Docker;

const MAKE: &str = "make the endpoint of a service";
/// The ports from which one is chosen where the app leaves the choice: below those that systems
/// give to outgoing connections.
const CHOSEN: std::ops::Range<u16> = 20_000..32_000;
/// How many of them are tried.
const TRIES: u32 = 20;
/// How the marks of routes that are being changed begin.
const UNSETTLED: &str = "unsettled.";

impl Docker {
    /// A client of a service's proxy.
    pub(crate) fn proxy(&self, app: &AppName, service: &ServiceName) -> Client {
        let name = names::proxy(app, service);
        let mut proxies = self.proxies.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let make = || agent::client(&self.engine, name.clone());
        proxies.entry(name.clone()).or_insert_with(make).clone()
    }

    /// Whether a service has a proxy.
    pub(crate) async fn has_proxy(&self, app: &AppName, service: &ServiceName) -> Result<bool> {
        let name = names::proxy(app, service);
        let found = self.engine.api.inspect_container(&name, None).await.optional(MAKE)?;
        Ok(found.and_then(|found| found.state?.running).unwrap_or(false))
    }

    /// Makes or changes an endpoint; see
    /// [`Runtime::ensure_endpoint`](deploykit_core::Runtime::ensure_endpoint).
    pub(crate) async fn make_endpoint(&self, fence: &Fence, spec: &EndpointSpec) -> Result<()> {
        let (app, service) = (&fence.app, &spec.service);
        let name = names::proxy(app, service);
        let keeper = self.keepers.get(app).await?.agent;
        let starting = self.engine.turn(&starting(&name)).await;
        // Several services may wait for one endpoint at once.
        let _turn = self.engine.turn(&name).await;
        let known = keeper.inspect().await?;
        let routed = known.endpoints.get(service).map(|e| e.routed.clone()).unwrap_or_default();
        // The keeper listens nowhere for it: it remembers what is routed.
        keeper.set_endpoint(fence, service, Vec::new()).await?;
        let hash = SpecHash::of_endpoint(spec);
        let mark = unfinished(service);
        let found = self.engine.api.inspect_container(&name, None).await.optional(MAKE)?;
        let mut before = Vec::new();
        let (exists, mut there) = (found.is_some(), false);
        if let Some(found) = found {
            let running = found.state.and_then(|state| state.running).unwrap_or(false);
            let config = found.config.unwrap_or_default();
            let (image, labels) = (config.image, config.labels.unwrap_or_default());
            if !names::are_ours(&labels, app) {
                return Err(crate::keeper::foreign("container", &name));
            }
            there = running && labels.get(names::HASH).map(String::as_str) == Some(hash.as_str());
            if let Some(agents) = self.agents_move_to(app).await? {
                there &= image == Some(agents);
            }
            if there && !known.targets.contains_key(&mark) {
                return self.serve(fence, spec).await;
            }
            let ports = labels.get(names::PORTS).and_then(|text| serde_json::from_str(text).ok());
            before = ports.unwrap_or_default();
        }
        // Whoever comes after a deployer that dies in between finds that it is not whole.
        keeper.set_target(fence, &mark, Target::default()).await?;
        if !there {
            if exists {
                self.engine.remove(&name).await?;
            }
            self.start_proxy(app, spec, &hash, &before, starting).await?;
        }
        self.serve(fence, spec).await?;
        let proxy = self.proxy(app, service);
        tell(&proxy, fence, &known, routed.iter()).await?;
        proxy.route(fence, service, routed).await?;
        keeper.remove_target(fence, &mark).await
    }

    async fn serve(&self, fence: &Fence, spec: &EndpointSpec) -> Result<()> {
        let listeners = spec.ports.iter().map(|port| Listener {
            declared: port.port,
            address: SocketAddr::from((Ipv4Addr::UNSPECIFIED, port.port)),
            mode: match port.protocol {
                Protocol::Http => Mode::Http,
                _ => Mode::Tcp,
            },
        });
        let listeners = listeners.collect();
        self.proxy(&fence.app, &spec.service).set_endpoint(fence, &spec.service, listeners).await
    }

    /// Starts a proxy, and gives back the turn in that when the engine is asked to; ports that the
    /// app leaves open are chosen, those it had `before` if possible.
    async fn start_proxy(
        &self,
        app: &AppName,
        spec: &EndpointSpec,
        hash: &SpecHash,
        before: &[EndpointPort],
        turn: Turn,
    ) -> Result<()> {
        let mut turn = Some(turn);
        let image = agent::image(&self.engine, app, &self.program).await?;
        let name = names::proxy(app, &spec.service);
        let network = names::app_network(app);
        self.engine.ensure_network(app, &network, &[]).await?;
        for attempt in 0.. {
            let before = if attempt == 0 { before } else { &[] };
            let ports: Vec<EndpointPort> =
                spec.ports.iter().map(|port| self.published(spec, port, before)).collect();
            let mut labels = names::labels(app, Role::Proxy);
            labels.insert(names::SERVICE.to_owned(), spec.service.to_string());
            labels.insert(names::HASH.to_owned(), hash.to_string());
            let text = serde_json::to_string(&ports)
                .map_err(|e| error(ErrorKind::Failed, MAKE, e.to_string()))?;
            labels.insert(names::PORTS.to_owned(), text);
            let proxy = agent::Spec {
                name: name.clone(),
                labels,
                image: image.clone(),
                volume: None,
                network: Some((network.clone(), vec![spec.service.to_string()])),
                ports: self.bindings(&ports),
            };
            let started = async {
                proxy.create(&self.engine, app).await?;
                drop(turn.take());
                agent::start(&self.engine, &name).await
            };
            let Err(cause) = started.await else { break };
            self.engine.remove(&name).await?;
            let Some(taken) = taken_port(&cause, &ports) else { return Err(cause) };
            let given = spec.ports.iter().any(|port| port.publish == Publish::HostPort(taken));
            if given || attempt >= TRIES {
                let message = format!("the engine cannot bind it: {}", cause.message());
                let reason = Reason::PortTaken { port: taken, message };
                let service = spec.service.clone();
                return Err(error(ErrorKind::AlreadyExists, MAKE, cause.message())
                    .with("service", &spec.service)
                    .with_diagnoses(vec![Diagnosis { service, instance: None, reason }]));
            }
        }
        crate::networks::join_proxy(&self.engine, app, &spec.service).await
    }

    /// Where a port is reached.
    fn published(
        &self,
        spec: &EndpointSpec,
        port: &deploykit_core::model::Port,
        before: &[EndpointPort],
    ) -> EndpointPort {
        let public = match &port.publish {
            Publish::HostPort(number) => Some(*number),
            Publish::Public => {
                let known = before.iter().find(|b| b.declared == port.port);
                let known = known.filter(|b| b.publish == Publish::Public);
                let known = known.and_then(|b| b.public.as_ref()).map(|address| address.port);
                Some(known.unwrap_or_else(|| fastrand::u16(CHOSEN)))
            }
            _ => None,
        };
        let host = self.publish.clone();
        EndpointPort {
            declared: port.port,
            address: Address { host: spec.service.to_string(), port: port.port },
            publish: port.publish.clone(),
            public: public.map(|port| Address { host, port }),
        }
    }

    fn bindings(&self, ports: &[EndpointPort]) -> PortMap {
        let bound = ports.iter().filter_map(|port| {
            let public = port.public.as_ref()?;
            let local = self.publish == "127.0.0.1";
            let binding = PortBinding {
                host_ip: Some(if local { "127.0.0.1" } else { "0.0.0.0" }.to_owned()),
                host_port: Some(public.port.to_string()),
            };
            Some((format!("{}/tcp", port.declared), Some(vec![binding])))
        });
        bound.collect::<HashMap<_, _>>()
    }

    /// Removes an endpoint; see
    /// [`Runtime::remove_endpoint`](deploykit_core::Runtime::remove_endpoint).
    pub(crate) async fn drop_endpoint(&self, fence: &Fence, service: &ServiceName) -> Result<()> {
        let (app, name) = (&fence.app, names::proxy(&fence.app, service));
        self.keepers.get(app).await?.agent.remove_endpoint(fence, service).await?;
        self.proxies.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&name);
        let found = self.engine.api.inspect_container(&name, None).await.optional(MAKE)?;
        let labels = found.and_then(|found| found.config?.labels).unwrap_or_default();
        if names::are_ours(&labels, app) { self.engine.remove(&name).await } else { Ok(()) }
    }

    /// Sets what takes requests, and tells the proxy how that is reached where it was started
    /// before the proxy; see [`Runtime::route`](deploykit_core::Runtime::route).
    pub(crate) async fn set_route(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instances: &[String],
    ) -> Result<()> {
        let keeper = self.keepers.get(&fence.app).await?.agent;
        let wanted: BTreeSet<String> = instances.iter().cloned().collect();
        // The keeper remembers what is routed, so that not every proxy has to be asked; but whoever
        // comes after a deployer that dies in between asks the proxy.
        let mark = unsettled(service);
        keeper.set_target(fence, &mark, Target::default()).await?;
        let proxy = self.proxy(&fence.app, service);
        let mut routed = async {
            let told = proxy.inspect().await?.targets;
            let missing: Vec<_> = wanted.iter().filter(|id| !told.contains_key(*id)).collect();
            if !missing.is_empty() {
                tell(&proxy, fence, &keeper.inspect().await?, missing.into_iter()).await?;
            }
            proxy.route(fence, service, wanted.clone()).await
        }
        .await;
        // Nothing is routed where there is no endpoint: a deployer may have died removing it.
        let none = wanted.is_empty();
        let or_none = |answer: Result<()>| match answer {
            Err(e) if none && e.kind() == ErrorKind::NotFound => Ok(()),
            answer => answer,
        };
        if none {
            routed = self.unless_gone(&fence.app, service, routed).await.map(drop);
        }
        or_none(routed)?;
        or_none(keeper.route(fence, service, wanted).await)?;
        keeper.remove_target(fence, &mark).await
    }

    /// The instances that each endpoint routes to: what the keeper remembers, and what the proxy
    /// itself says where that is being changed, or was by a deployer that died; without those that
    /// are not whole yet.
    pub(crate) async fn routed(
        &self,
        app: &AppName,
        known: &Report,
    ) -> BTreeMap<ServiceName, BTreeSet<String>> {
        let mut routed = BTreeMap::new();
        for (service, endpoint) in &known.endpoints {
            if known.targets.contains_key(&unfinished(service)) {
                continue;
            }
            if !known.targets.contains_key(&unsettled(service)) {
                routed.insert(service.clone(), endpoint.routed.clone());
                continue;
            }
            let said = self.proxy(app, service).inspect().await.unwrap_or_default();
            if let Some(said) = said.endpoints.get(service) {
                routed.insert(service.clone(), said.routed.clone());
            }
        }
        routed
    }

    /// Waits until an instance has nothing in flight; see
    /// [`Runtime::drain`](deploykit_core::Runtime::drain).
    pub(crate) async fn drain_instance(
        &self,
        fence: &Fence,
        service: &ServiceName,
        instance: &str,
        deadline: Duration,
    ) -> Result<bool> {
        if !self.has_proxy(&fence.app, service).await? {
            return Ok(true);
        }
        let proxy = self.proxy(&fence.app, service);
        let drained = proxy.drain(fence, service, instance, deadline).await;
        let drained = self.unless_gone(&fence.app, service, drained).await?;
        Ok(drained.unwrap_or(true))
    }

    /// What a proxy has answered; nothing where it has ended meanwhile: a deployer that died may
    /// have had it removed.
    pub(crate) async fn unless_gone<T>(
        &self,
        app: &AppName,
        service: &ServiceName,
        answer: Result<T>,
    ) -> Result<Option<T>> {
        match answer {
            Err(_) if !self.has_proxy(app, service).await? => Ok(None),
            answer => answer.map(Some),
        }
    }
}

/// Tells a proxy how instances are reached, as far as the keeper knows it.
async fn tell(
    proxy: &Client,
    fence: &Fence,
    known: &Report,
    instances: impl Iterator<Item = &String>,
) -> Result<()> {
    for id in instances {
        if let Some(known) = known.targets.get(id) {
            proxy.set_target(fence, id, known.target.clone()).await?;
        }
    }
    Ok(())
}

/// The turn in starting a proxy, after which instances of its service that start at the same time
/// are started: else of many services all proxies would come last.
pub(crate) fn starting(proxy: &str) -> String {
    format!("start {proxy}")
}

/// What the keeper knows while the proxy of a service is being made.
fn unfinished(service: &ServiceName) -> String {
    format!("unfinished.{service}")
}

/// What the keeper knows while the route of a service is being changed.
fn unsettled(service: &ServiceName) -> String {
    format!("{UNSETTLED}{service}")
}

/// Whether some route is being changed.
pub(crate) fn is_unsettled(known: &Report) -> bool {
    known.targets.keys().any(|target| target.starts_with(UNSETTLED))
}

/// The port that somebody else has, where that is why a container did not start.
fn taken_port(cause: &Error, ports: &[EndpointPort]) -> Option<u16> {
    let said = cause.message();
    let taken = ["port is already allocated", "address already in use", "ports are not available"];
    if !taken.iter().any(|word| said.contains(word)) {
        return None;
    }
    let public = ports.iter().filter_map(|port| Some(port.public.as_ref()?.port));
    let mut public = public.collect::<Vec<_>>();
    public.sort_by_key(|port| !said.contains(&format!(":{port}")));
    public.first().copied()
}
