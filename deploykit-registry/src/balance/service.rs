//! Balancing for what is made of [tower](https://docs.rs/tower)'s services.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::task::{Context, Poll};

use deploykit_core::model::ServiceName;
use deploykit_core::{Registered, Result, ServiceRegistry};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tower::discover::Change;
use tower::{BoxError, Service};

use super::Balancer;

impl Balancer {
    /// A [`tower::Service`] that gives each call to the service that `make` makes for the picked
    /// instance. What it makes is best cheap: a client that pools its connections, with the
    /// instance's address.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), tower::BoxError> {
    /// use std::convert::Infallible;
    /// use std::time::Duration;
    /// use deploykit_core::model::{Address, ServiceName};
    /// use deploykit_core::{Registered, ServiceRegistry, memory};
    /// use deploykit_registry::{Balancer, Policy};
    /// use tower::{ServiceExt, service_fn};
    ///
    /// let registry = memory::Registry::default();
    /// let posts = ServiceName::new("posts")?;
    /// let address = Address { host: "10.0.0.1".into(), port: 80 };
    /// let me = Registered::new(posts.clone(), "posts-1", address);
    /// let _registration = registry.register(me, Duration::from_secs(10)).await?;
    ///
    /// let balancer = Balancer::watch(&registry, &posts, Policy::PeakEwma).await?;
    /// let service = balancer.service(|instance: &Registered| {
    ///     let address = instance.address.to_string();
    ///     service_fn(move |path: &str| {
    ///         let answer = format!("GET http://{address}{path}");
    ///         async { Ok::<_, Infallible>(answer) }
    ///     })
    /// });
    /// assert_eq!(service.oneshot("/healthz").await?, "GET http://10.0.0.1:80/healthz");
    /// # Ok(())
    /// # }
    /// ```
    pub fn service<F>(&self, make: F) -> BalancedService<F> {
        BalancedService { balancer: self.clone(), make }
    }
}

/// A [`tower::Service`] over the instances of a service, of [`Balancer::service`]. An answer speaks
/// for the instance, an error against it. Where there is no instance the call fails; it is always
/// ready.
///
/// Dropping the future of a call drops the instance's own, and says nothing about the instance.
#[derive(Clone)]
pub struct BalancedService<F> {
    balancer: Balancer,
    make: F,
}

impl<F, S, Request> Service<Request> for BalancedService<F>
where
    F: FnMut(&Registered) -> S,
    S: Service<Request> + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    Request: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<S::Response, BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let picked = self.balancer.pick().map(|picked| ((self.make)(picked.instance()), picked));
        async move {
            let (mut service, picked) = picked?;
            let ready = poll_fn(|context| service.poll_ready(context)).await.map_err(Into::into);
            let answer = match ready {
                Ok(()) => service.call(request).await.map_err(Into::into),
                Err(error) => Err(error),
            };
            match answer {
                Ok(_) => picked.succeeded(),
                Err(_) => picked.failed(),
            }
            answer
        }
        .boxed()
    }
}

/// The instances of a service as a [`tower::discover::Discover`], each under its id, with what
/// `make` makes for it: for tower's own balancers. One that has changed is inserted again.
///
/// # Errors
/// Those of [`ServiceRegistry::watch`].
pub async fn discover<S>(
    registry: &dyn ServiceRegistry,
    service: &ServiceName,
    make: impl Fn(&Registered) -> S + Send + 'static,
) -> Result<BoxStream<'static, Result<Change<String, S>>>>
where
    S: Send + 'static,
{
    let mut known = BTreeMap::<String, Registered>::new();
    let changes = registry.watch(service).await?.flat_map(move |list| {
        let changes = match list {
            Ok(list) => {
                let next: BTreeMap<_, _> =
                    list.into_iter().map(|instance| (instance.id.clone(), instance)).collect();
                let gone = known.keys().filter(|id| !next.contains_key(*id));
                let gone = gone.map(|id| Ok(Change::Remove(id.clone())));
                let come = next.iter().filter(|(id, instance)| known.get(*id) != Some(instance));
                let come =
                    come.map(|(id, instance)| Ok(Change::Insert(id.clone(), make(instance))));
                let changes = gone.chain(come).collect();
                known = next;
                changes
            }
            Err(error) => vec![Err(error)],
        };
        stream::iter(changes)
    });
    Ok(changes.boxed())
}
