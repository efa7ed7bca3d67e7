//! What is served: targets and endpoints, as they were set, and as they are.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use deploykit_core::model::ServiceName;
use deploykit_core::{Error, ErrorKind, Fence, Result};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::document;
use super::follow::{Follower, News};
use crate::control::{EndpointReport, Listener, Report, Target, TargetReport};
use crate::error::BACKEND;
use crate::probe::Health;
use crate::proxy::{BackendAddress, ServiceProxy};

/// As it is in the file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    fence: Option<Fence>,
    targets: BTreeMap<String, Target>,
    endpoints: BTreeMap<ServiceName, StoredEndpoint>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredEndpoint {
    listeners: Vec<Listener>,
    routed: BTreeSet<String>,
}

/// An instance that is known.
#[derive(Debug)]
struct Known {
    target: Target,
    /// Where its ports are, once that is known.
    addresses: Vec<(u16, SocketAddr)>,
    health: Health,
    follower: Follower,
    /// It was known before the agent was started.
    restored: bool,
}

/// An endpoint that is served.
#[derive(Debug, Default)]
struct Served {
    routed: BTreeSet<String>,
    listeners: Vec<Listening>,
}

#[derive(Debug, Clone)]
struct Listening {
    listener: Listener,
    /// Absent while the address cannot be had back.
    proxy: Option<Arc<ServiceProxy>>,
}

/// Everything that an agent serves. Nothing is served that the file does not say.
#[derive(Debug)]
pub(super) struct Serving {
    path: PathBuf,
    /// The newest right to change that has come.
    fence: Option<Fence>,
    targets: BTreeMap<String, Known>,
    endpoints: BTreeMap<ServiceName, Served>,
    /// Where proxies and probers run.
    data: Handle,
    news: mpsc::UnboundedSender<News>,
}

impl Serving {
    /// Reads what was served before: targets are asked at once, listeners are bound by
    /// [`bind_missing`](Self::bind_missing).
    pub(super) fn open(
        path: &Path,
        data: Handle,
        news: mpsc::UnboundedSender<News>,
    ) -> Result<Self> {
        let stored: Stored = document::read(path)?.unwrap_or_default();
        let listen = |listener| Listening { listener, proxy: None };
        let endpoints = stored.endpoints.into_iter().map(|(service, endpoint)| {
            let listeners = endpoint.listeners.into_iter().map(listen).collect();
            (service, Served { routed: endpoint.routed, listeners })
        });
        let mut serving = Self {
            path: path.to_owned(),
            fence: stored.fence,
            targets: BTreeMap::new(),
            endpoints: endpoints.collect(),
            data,
            news,
        };
        for (instance, target) in stored.targets {
            let known = Known { restored: true, ..serving.know(&instance, target) };
            serving.targets.insert(instance, known);
        }
        Ok(serving)
    }

    fn know(&self, instance: &str, target: Target) -> Known {
        let follower = Follower::spawn(&self.data, instance, &target, self.news.clone());
        let (addresses, health) = (Vec::new(), Health::default());
        Known { target, addresses, health, follower, restored: false }
    }

    /// Whether something that was known before the start has not said yet that it is ready.
    pub(super) fn is_settling(&self) -> bool {
        self.targets.values().any(|known| known.restored && !known.health.ready)
    }

    /// Refuses a right that is older than one that has come before, or another app's.
    pub(super) fn check(&self, fence: &Fence) -> Result<()> {
        let refuse = |kind, message: String| {
            let error = Error::new(kind, "change what the agent serves", message).on(BACKEND);
            Err(error.with("app", &fence.app).with("epoch", fence.epoch))
        };
        match &self.fence {
            Some(known) if known.app != fence.app => refuse(
                ErrorKind::Invalid,
                format!("this agent serves the app {}; an app has agents of its own", known.app),
            ),
            Some(known) if known.epoch > fence.epoch => refuse(
                ErrorKind::Conflict,
                "the deploy lock was taken over by another deployer; run it again".to_owned(),
            ),
            _ => Ok(()),
        }
    }

    /// Writes what is served, with one change that is not made in memory yet.
    fn store(&mut self, fence: &Fence, change: impl FnOnce(&mut Stored)) -> Result<()> {
        let targets = self.targets.iter().map(|(id, known)| (id.clone(), known.target.clone()));
        let endpoint = |served: &Served| StoredEndpoint {
            listeners: served.listeners.iter().map(|l| l.listener.clone()).collect(),
            routed: served.routed.clone(),
        };
        let endpoints =
            self.endpoints.iter().map(|(name, served)| (name.clone(), endpoint(served)));
        let mut stored = Stored {
            fence: Some(fence.clone()),
            targets: targets.collect(),
            endpoints: endpoints.collect(),
        };
        change(&mut stored);
        document::write(&self.path, &stored)?;
        self.fence = Some(fence.clone());
        Ok(())
    }

    /// See [`Client::set_target`](crate::control::Client::set_target).
    pub(super) fn set_target(
        &mut self,
        fence: &Fence,
        instance: String,
        target: Target,
    ) -> Result<()> {
        self.check(fence)?;
        super::follow::check(&instance, &target)?;
        if self.targets.get(&instance).is_some_and(|known| known.target == target) {
            return Ok(());
        }
        self.store(fence, |stored| {
            stored.targets.insert(instance.clone(), target.clone());
        })?;
        let known = self.know(&instance, target);
        self.targets.insert(instance.clone(), known);
        self.rebalance(&instance);
        Ok(())
    }

    /// See [`Client::remove_target`](crate::control::Client::remove_target).
    pub(super) fn remove_target(&mut self, fence: &Fence, instance: &str) -> Result<()> {
        self.check(fence)?;
        if !self.targets.contains_key(instance) {
            return Ok(());
        }
        self.store(fence, |stored| {
            stored.targets.remove(instance);
        })?;
        self.targets.remove(instance);
        self.rebalance(instance);
        Ok(())
    }

    /// What has become known of a target. Returns whether anything has changed.
    pub(super) fn take(&mut self, news: News) -> bool {
        let Some(known) = self.targets.get_mut(&news.instance) else { return false };
        // That of a target before this one, told late.
        if !known.follower.has_sent(&news) {
            return false;
        }
        if known.addresses == news.addresses && known.health == news.health {
            return false;
        }
        known.addresses = news.addresses;
        known.health = news.health;
        self.rebalance(&news.instance);
        true
    }

    /// Tells the proxies that an instance is routed by who takes new requests.
    fn rebalance(&self, instance: &str) {
        for served in self.endpoints.values().filter(|served| served.routed.contains(instance)) {
            self.balance(served);
        }
    }

    fn balance(&self, served: &Served) {
        let known = |id: &String| Some((id.clone(), self.targets.get(id)?));
        let ready: Vec<_> = served
            .routed
            .iter()
            .filter_map(known)
            .filter(|(_, known)| known.health.ready)
            .collect();
        for Listening { listener, proxy } in &served.listeners {
            let address = |(id, known): &(String, &Known)| {
                let mut ports = known.addresses.iter();
                let (_, address) = ports.find(|(declared, _)| *declared == listener.declared)?;
                Some(BackendAddress::new(id, *address))
            };
            if let Some(proxy) = proxy {
                proxy.set_backends(ready.iter().filter_map(address));
            }
        }
    }

    fn bind(&self, listener: &Listener) -> io::Result<Arc<ServiceProxy>> {
        let _here = self.data.enter();
        ServiceProxy::bind(listener.address, listener.mode).map(Arc::new)
    }

    /// The listeners that stand in the way of what an endpoint shall be: those at the same
    /// addresses that balance something else. They are taken out, to be shut down.
    pub(super) fn take_in_the_way(
        &mut self,
        fence: &Fence,
        service: &ServiceName,
        listeners: &[Listener],
    ) -> Result<Vec<Arc<ServiceProxy>>> {
        self.check(fence)?;
        let Some(served) = self.endpoints.get_mut(service) else { return Ok(Vec::new()) };
        let differs = |other: &Listening| {
            let same = |l: &&Listener| l.address == other.listener.address;
            listeners.iter().find(same).is_some_and(|l| l.mode != other.listener.mode)
        };
        let taken = served.listeners.iter_mut().filter(|other| differs(other));
        Ok(taken.filter_map(|other| other.proxy.take()).collect())
    }

    /// See [`Client::set_endpoint`](crate::control::Client::set_endpoint). Returns what is not
    /// served any more, to be shut down.
    pub(super) fn set_endpoint(
        &mut self,
        fence: &Fence,
        service: ServiceName,
        listeners: Vec<Listener>,
    ) -> Result<Vec<Arc<ServiceProxy>>> {
        self.check(fence)?;
        let before = self.endpoints.get(&service);
        let keep = |listener: &Listener| {
            let same = |other: &&Listening| {
                other.listener.address == listener.address && other.listener.mode == listener.mode
            };
            before?.listeners.iter().find(same)?.proxy.clone()
        };
        let mut listening = Vec::new();
        for listener in &listeners {
            let proxy = match keep(listener) {
                Some(proxy) => proxy,
                None => self.bind(listener).map_err(|e| taken(fence, &service, listener, &e))?,
            };
            listening.push(Listening { listener: listener.clone(), proxy: Some(proxy) });
        }
        self.store(fence, |stored| {
            let routed =
                stored.endpoints.remove(&service).map(|before| before.routed).unwrap_or_default();
            stored.endpoints.insert(service.clone(), StoredEndpoint { listeners, routed });
        })?;
        let served = self.endpoints.entry(service.clone()).or_default();
        let before = std::mem::replace(&mut served.listeners, listening);
        let kept = |proxy: &Arc<ServiceProxy>| {
            let mut listeners = served.listeners.iter();
            listeners.any(|l| l.proxy.as_ref().is_some_and(|other| Arc::ptr_eq(other, proxy)))
        };
        let gone =
            before.into_iter().filter_map(|l| l.proxy).filter(|proxy| !kept(proxy)).collect();
        if let Some(served) = self.endpoints.get(&service) {
            self.balance(served);
        }
        Ok(gone)
    }

    /// See [`Client::remove_endpoint`](crate::control::Client::remove_endpoint). Returns what is not
    /// served any more, to be shut down.
    pub(super) fn remove_endpoint(
        &mut self,
        fence: &Fence,
        service: &ServiceName,
    ) -> Result<Vec<Arc<ServiceProxy>>> {
        self.check(fence)?;
        if !self.endpoints.contains_key(service) {
            return Ok(Vec::new());
        }
        self.store(fence, |stored| {
            stored.endpoints.remove(service);
        })?;
        let served = self.endpoints.remove(service).unwrap_or_default();
        Ok(served.listeners.into_iter().filter_map(|listening| listening.proxy).collect())
    }

    /// See [`Client::route`](crate::control::Client::route).
    pub(super) fn route(
        &mut self,
        fence: &Fence,
        service: &ServiceName,
        instances: BTreeSet<String>,
    ) -> Result<()> {
        self.check(fence)?;
        match self.endpoints.get(service) {
            None => {
                let message = format!("{service} has no endpoint here; make it first");
                let error = Error::new(ErrorKind::NotFound, "route requests", message).on(BACKEND);
                return Err(error.with("app", &fence.app));
            }
            Some(served) if served.routed == instances => return Ok(()),
            Some(_) => {}
        }
        self.store(fence, |stored| {
            if let Some(endpoint) = stored.endpoints.get_mut(service) {
                endpoint.routed.clone_from(&instances);
            }
        })?;
        if let Some(served) = self.endpoints.get_mut(service) {
            served.routed = instances;
        }
        if let Some(served) = self.endpoints.get(service) {
            self.balance(served);
        }
        Ok(())
    }

    /// The proxies of a service, to drain an instance at.
    pub(super) fn proxies(
        &self,
        fence: &Fence,
        service: &ServiceName,
    ) -> Result<Vec<Arc<ServiceProxy>>> {
        self.check(fence)?;
        let served = self.endpoints.get(service).into_iter();
        Ok(served.flat_map(|s| &s.listeners).filter_map(|l| l.proxy.clone()).collect())
    }

    /// Everything that listens, to be shut down. Nothing is served any more.
    pub(super) fn close(&mut self) -> Vec<Arc<ServiceProxy>> {
        self.targets.clear();
        let endpoints = std::mem::take(&mut self.endpoints).into_values();
        endpoints.flat_map(|served| served.listeners).filter_map(|l| l.proxy).collect()
    }

    /// Binds what an earlier agent has served, and tells what cannot be had back yet.
    pub(super) fn bind_missing(&mut self) -> Vec<(SocketAddr, io::Error)> {
        let mut failed = Vec::new();
        let services: Vec<_> = self.endpoints.keys().cloned().collect();
        for service in services {
            let Some(mut served) = self.endpoints.remove(&service) else { continue };
            for listening in served.listeners.iter_mut().filter(|l| l.proxy.is_none()) {
                match self.bind(&listening.listener) {
                    Ok(proxy) => listening.proxy = Some(proxy),
                    Err(e) => failed.push((listening.listener.address, e)),
                }
            }
            self.balance(&served);
            self.endpoints.insert(service, served);
        }
        failed
    }

    /// See [`Client::inspect`](crate::control::Client::inspect).
    pub(super) fn report(&self) -> Report {
        let target = |known: &Known| TargetReport {
            target: known.target.clone(),
            health: known.health.clone(),
        };
        let endpoint = |served: &Served| EndpointReport {
            listeners: served
                .listeners
                .iter()
                .map(|l| {
                    (l.listener.clone(), l.proxy.as_ref().map(|p| p.stats()).unwrap_or_default())
                })
                .collect(),
            routed: served.routed.clone(),
        };
        Report {
            targets: self.targets.iter().map(|(id, known)| (id.clone(), target(known))).collect(),
            endpoints: self.endpoints.iter().map(|(s, e)| (s.clone(), endpoint(e))).collect(),
        }
    }
}

fn taken(fence: &Fence, service: &ServiceName, listener: &Listener, error: &io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::Unauthorized,
        _ => ErrorKind::AlreadyExists,
    };
    let message =
        format!("{} cannot be had: {error}; end who has it, or choose another", listener.address);
    Error::new(kind, "make an endpoint", message)
        .on(BACKEND)
        .with("app", &fence.app)
        .with("service", service)
}
