//! DNS: services read from a zone, and a zone served from any registry.

mod query;
mod responder;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::model::{Address, ServiceName};
use deploykit_core::{Error, ErrorKind, Registered, Registration, Result, ServiceRegistry};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use hickory_proto::rr::{Name, RData, RecordType};
use tokio::time::sleep;

pub use self::responder::DnsResponder;

use self::query::Answer;
use crate::config::RegistryConfig;

/// Answers are asked for again when their time to live is over, not sooner and not later than:
const SOONEST: Duration = Duration::from_secs(1);
const LATEST: Duration = Duration::from_secs(300);

/// Until what is not there is asked for again.
const ABSENT: Duration = Duration::from_secs(5);

/// The services of a zone of the DNS as [`ServiceRegistry`], read only. Clones are the same.
///
/// `dns://10.0.0.2:53/blog.internal` asks the name server at that address. The instances of `posts`
/// are the SRV records ([RFC 2782](https://www.rfc-editor.org/rfc/rfc2782)) of
/// `posts.blog.internal` or `_posts._tcp.blog.internal`, each named by the first label of its
/// target; with `?port=8080`, also where there are none, the addresses of `posts.blog.internal` at
/// that port. A watch asks again when the answer's time to live is over.
///
/// ```no_run
/// # async fn example() -> deploykit_core::Result<()> {
/// use deploykit_core::{ServiceRegistry, model::ServiceName};
/// use deploykit_registry::{Dns, RegistryConfig};
///
/// let dns = Dns::new(RegistryConfig::from_url("dns://10.0.0.2/blog.internal")?)?;
/// println!("{:?}", dns.instances(&ServiceName::new("posts")?).await?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Dns(Arc<RegistryConfig>);

impl Dns {
    /// Of the name servers of `config`; the first one that answers is believed.
    ///
    /// # Errors
    /// `Invalid` for a zone that is no name, `Unsupported` where TLS or a user is asked for.
    pub fn new(config: RegistryConfig) -> Result<Self> {
        if config.tls || config.user.is_some() {
            let message = "name servers are asked without TLS and user; leave both out";
            let error = Error::new(ErrorKind::Unsupported, "read a zone", message);
            return Err(error.on("dns"));
        }
        name(&config.path)?;
        Ok(Self(Arc::new(config)))
    }

    /// The instances, and how long this may be believed.
    async fn read(&self, service: &ServiceName) -> Result<(Vec<Registered>, Duration)> {
        let hosts = &self.0.hosts;
        let zone = &self.0.path;
        for owner in [format!("{service}.{zone}"), format!("_{service}._tcp.{zone}")] {
            let answer = query::ask(hosts, name(&owner)?, RecordType::SRV).await?;
            let found = self.of_srv(service, &answer).await?;
            if !found.is_empty() {
                return Ok((found, believed(&answer)));
            }
        }
        let Some(port) = self.0.port else {
            return Ok((Vec::new(), ABSENT));
        };
        let (addresses, until) = self.addresses(&format!("{service}.{zone}")).await?;
        let instance = |host: IpAddr| {
            let address = Address { host: host.to_string(), port };
            Registered::new(service.clone(), host.to_string(), address)
        };
        Ok((addresses.into_iter().map(instance).collect(), until))
    }

    async fn addresses(&self, owner: &str) -> Result<(Vec<IpAddr>, Duration)> {
        let mut found = Vec::new();
        let mut until = ABSENT;
        for kind in [RecordType::A, RecordType::AAAA] {
            let answer = query::ask(&self.0.hosts, name(owner)?, kind).await?;
            let addresses: Vec<_> =
                answer.records.iter().filter_map(|record| record.data.ip_addr()).collect();
            if !addresses.is_empty() {
                until = believed(&answer);
            }
            found.extend(addresses);
        }
        found.sort_unstable();
        Ok((found, until))
    }

    async fn of_srv(&self, service: &ServiceName, answer: &Answer) -> Result<Vec<Registered>> {
        let zone = name(&self.0.path)?;
        let mut instances = BTreeMap::new();
        for record in &answer.records {
            let RData::SRV(srv) = &record.data else { continue };
            let target = srv.target.to_lowercase();
            let told = answer.additional.iter().filter(|more| more.name.to_lowercase() == target);
            let mut host = told.filter_map(|more| more.data.ip_addr()).min();
            if host.is_none() && zone.zone_of(&target) {
                host = self.addresses(&target.to_ascii()).await?.0.first().copied();
            }
            // The name itself, where it is of another zone.
            let plain = target.to_ascii().trim_end_matches('.').to_owned();
            let host = host.map_or_else(|| plain.clone(), |host| host.to_string());
            let label = plain.split('.').next().unwrap_or(&plain);
            let id = match instances.contains_key(label) {
                true => format!("{label}:{}", srv.port),
                false => label.to_owned(),
            };
            let address = Address { host, port: srv.port };
            let mut instance = Registered::new(service.clone(), id.clone(), address);
            if srv.weight > 1 {
                instance.metadata.insert("weight".into(), srv.weight.to_string());
            }
            instances.insert(id, instance);
        }
        Ok(instances.into_values().collect())
    }
}

fn believed(answer: &Answer) -> Duration {
    let seconds = answer.records.iter().map(|record| record.ttl).min();
    seconds.map_or(ABSENT, |seconds| Duration::from_secs(seconds.into())).clamp(SOONEST, LATEST)
}

/// A name from the root.
fn name(text: &str) -> Result<Name> {
    let name = Name::from_ascii(format!("{}.", text.trim_end_matches('.')));
    name.map_err(|error| {
        let message = "this is no name of the DNS: labels of at most 63 characters, with dots";
        let error = Error::new(ErrorKind::Invalid, "name a zone", message).because(error);
        error.on("dns").with("name", text)
    })
}

#[async_trait]
impl ServiceRegistry for Dns {
    /// Always `Unsupported`: what a zone holds is written where it is kept.
    async fn register(&self, instance: Registered, _: Duration) -> Result<Box<dyn Registration>> {
        let message = "the DNS is only read here; register where its zone is kept";
        let error = Error::new(ErrorKind::Unsupported, "register", message).on("dns");
        Err(error.with("service", instance.service))
    }

    async fn instances(&self, service: &ServiceName) -> Result<Vec<Registered>> {
        Ok(self.read(service).await?.0)
    }

    async fn watch(
        &self,
        service: &ServiceName,
    ) -> Result<BoxStream<'static, Result<Vec<Registered>>>> {
        let state = (self.clone(), service.clone(), self.read(service).await?, false);
        Ok(stream::unfold(Some(state), |state| async {
            let (dns, service, (mut known, mut until), told) = state?;
            if !told {
                let state = (dns, service, (known.clone(), until), true);
                return Some((Ok(known), Some(state)));
            }
            loop {
                sleep(until).await;
                match dns.read(&service).await {
                    Ok((list, next)) => {
                        until = next;
                        if list != known {
                            known.clone_from(&list);
                            return Some((Ok(list), Some((dns, service, (known, until), true))));
                        }
                    }
                    Err(error) if error.is_retryable() => {
                        tracing::debug!(%error, "a zone is not read; trying again");
                        until = SOONEST;
                    }
                    Err(error) => return Some((Err(error), None)),
                }
            }
        })
        .boxed())
    }
}
