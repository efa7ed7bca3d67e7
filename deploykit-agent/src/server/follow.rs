//! Follows one target: looks its names up, again and again, and asks its probes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deploykit_core::model::Check;
use deploykit_core::{Error, ErrorKind, Problem, Result};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::control::Target;
use crate::error::BACKEND;
use crate::probe::{self, Health, Prober};

/// How often a name is looked up that is known.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How often one that is not.
const LOOK_FOR: Duration = Duration::from_millis(100);
/// How long a lookup may take.
const LOOKUP: Duration = Duration::from_secs(5);

/// What has become known of a target.
#[derive(Debug)]
pub(super) struct News {
    pub(super) instance: String,
    pub(super) addresses: Vec<(u16, SocketAddr)>,
    pub(super) health: Health,
    follower: u64,
}

/// Follows a target until dropped.
#[derive(Debug)]
pub(super) struct Follower {
    id: u64,
    task: AbortHandle,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    pub(super) fn spawn(
        data: &Handle,
        instance: &str,
        target: &Target,
        news: mpsc::UnboundedSender<News>,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        let (instance, target) = (instance.to_owned(), target.clone());
        let tell = move |addresses: &[(u16, SocketAddr)], health: &Health| {
            let (addresses, health) = (addresses.to_vec(), health.clone());
            let _ = news.send(News { instance: instance.clone(), addresses, health, follower: id });
        };
        let task = data.spawn(async move { follow(&target, &tell).await }).abort_handle();
        Self { id, task }
    }

    pub(super) fn has_sent(&self, news: &News) -> bool {
        self.id == news.follower
    }
}

async fn follow(target: &Target, tell: &impl Fn(&[(u16, SocketAddr)], &Health)) {
    let named = target.ports.iter().any(|(_, address)| address.parse::<SocketAddr>().is_err());
    let mut addresses = loop {
        match look_up(target).await {
            Some(addresses) => break addresses,
            None => tokio::time::sleep(LOOK_FOR).await,
        }
    };
    loop {
        let reached = probe::Target::new(addresses.iter().copied());
        let mut health = Prober::spawn(target.probes.clone(), reached);
        let moved = loop {
            tell(&addresses, &health.borrow_and_update().clone());
            tokio::select! {
                changed = health.changed() => if changed.is_err() {
                    // It wants a new start: nothing is asked until it has got one.
                    tell(&addresses, &health.borrow().clone());
                    std::future::pending::<()>().await;
                },
                moved = moved(target, &addresses), if named => break moved,
            }
        };
        addresses = moved;
    }
}

/// Returns when names mean other addresses. One that cannot be looked up means what it meant: who
/// answers may be gone for a while, and the instance is not for that.
async fn moved(target: &Target, known: &[(u16, SocketAddr)]) -> Vec<(u16, SocketAddr)> {
    loop {
        tokio::time::sleep(LOOK_AGAIN).await;
        if let Some(addresses) = look_up(target).await.filter(|addresses| addresses != known) {
            return addresses;
        }
    }
}

async fn look_up(target: &Target) -> Option<Vec<(u16, SocketAddr)>> {
    let mut addresses = Vec::new();
    for (declared, address) in &target.ports {
        let found = match address.parse() {
            Ok(address) => address,
            Err(_) => timeout(LOOKUP, tokio::net::lookup_host(address)).await.ok()?.ok()?.next()?,
        };
        addresses.push((*declared, found));
    }
    Some(addresses)
}

/// Refuses what can never be a target.
pub(super) fn check(instance: &str, target: &Target) -> Result<()> {
    let mut problems = Vec::new();
    for (n, (_, address)) in target.ports.iter().enumerate() {
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if !port.is_some_and(|(_, port)| port.parse::<u16>().is_ok_and(|port| port > 0)) {
            let what = format!("`{address}` is no host with a port");
            problems.push(Problem::new(format!("ports[{n}]"), what, "like `web-1:8080`"));
        }
    }
    if !problems.is_empty() {
        let error = Error::invalid("set a target", problems).on(BACKEND);
        return Err(error.with("instance", instance));
    }
    if let Some((name, _)) =
        target.probes.iter().find(|(_, probe)| matches!(probe.check, Check::Exec(_)))
    {
        let message = format!(
            "the {name} probe is a command, and the agent is not where the instance is: have the engine run it"
        );
        let error = Error::new(ErrorKind::Unsupported, "set a target", message).on(BACKEND);
        return Err(error.with("instance", instance));
    }
    Ok(())
}
