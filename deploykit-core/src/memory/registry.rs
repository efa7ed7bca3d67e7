//! A [`ServiceRegistry`] in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;

use super::lock;
use crate::error::Result;
use crate::model::ServiceName;
use crate::registry::{Registered, Registration, ServiceRegistry};

/// Each instance with the number of its registration: a newer one under the same id takes over.
type Instances = BTreeMap<String, (u64, Registered)>;

/// A [`ServiceRegistry`] in memory. Clones are the same registry.
///
/// A registration lives as long as it is held: the registry dies with the process, so there is no
/// death of a process to outlive, and the time to live does not matter.
#[derive(Clone, Debug, Default)]
pub struct Registry(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    services: Mutex<BTreeMap<ServiceName, watch::Sender<Instances>>>,
    registrations: AtomicU64,
}

impl Registry {
    fn service(&self, service: &ServiceName) -> watch::Sender<Instances> {
        lock(&self.0.services).entry(service.clone()).or_default().clone()
    }
}

fn listed(instances: &Instances) -> Vec<Registered> {
    instances.values().map(|(_, instance)| instance.clone()).collect()
}

#[async_trait]
impl ServiceRegistry for Registry {
    async fn register(&self, instance: Registered, _: Duration) -> Result<Box<dyn Registration>> {
        let number = self.0.registrations.fetch_add(1, Ordering::Relaxed);
        let service = self.service(&instance.service);
        let id = instance.id.clone();
        service.send_if_modified(|all| {
            let before = all.insert(id.clone(), (number, instance.clone()));
            before.is_none_or(|(_, before)| before != instance)
        });
        Ok(Box::new(Held { service, id, number }))
    }

    async fn instances(&self, service: &ServiceName) -> Result<Vec<Registered>> {
        Ok(listed(&self.service(service).borrow()))
    }

    async fn watch(
        &self,
        service: &ServiceName,
    ) -> Result<BoxStream<'static, Result<Vec<Registered>>>> {
        let sender = self.service(service);
        let mut receiver = sender.subscribe();
        receiver.mark_changed();
        Ok(stream::unfold((sender, receiver), |(sender, mut receiver)| async {
            receiver.changed().await.ok()?;
            let all = listed(&receiver.borrow_and_update());
            Some((Ok(all), (sender, receiver)))
        })
        .boxed())
    }
}

struct Held {
    service: watch::Sender<Instances>,
    id: String,
    number: u64,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.service.send_if_modified(|all| {
            let ours = all.get(&self.id).is_some_and(|(number, _)| *number == self.number);
            ours && all.remove(&self.id).is_some()
        });
    }
}

#[async_trait]
impl Registration for Held {
    async fn deregister(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::model::Address;

    #[tokio::test]
    async fn watches_tell_each_change() {
        let registry = Registry::default();
        let posts = ServiceName::new("posts").unwrap();
        let mut watch = registry.watch(&posts).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap(), []);
        let at = |port| {
            let address = Address { host: "10.0.0.1".into(), port };
            Registered::new(posts.clone(), "posts-1", address)
        };
        let old = registry.register(at(1), Duration::from_secs(1)).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap(), [at(1)]);
        let new = registry.register(at(2), Duration::from_secs(1)).await.unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap(), [at(2)]);
        old.deregister().await.unwrap();
        assert_eq!(registry.instances(&posts).await.unwrap(), [at(2)], "the newer one stays");
        drop(new);
        assert_eq!(watch.next().await.unwrap().unwrap(), []);
    }
}
