//! A zone of the DNS that is served from a registry.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::ServiceName;
use deploykit_core::{Error, ErrorKind, Registered, Result, ServiceRegistry};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::name;
use super::query::DATAGRAM;
use crate::balance::hash::hash;

/// How long an answer may be believed, in seconds.
const TTL: u32 = 5;

/// How long the registry may take, and a client between two questions.
const CALL: Duration = Duration::from_secs(4);
const IDLE: Duration = Duration::from_secs(10);

/// How many questions are answered at once; more of them wait.
const AT_ONCE: usize = 256;

/// An authoritative name server of one zone, for programs that know nothing of a registry: asked
/// over UDP and TCP until it is dropped.
///
/// In the zone `blog.internal`, `posts.blog.internal` has the addresses of all instances of
/// `posts`, and an SRV record for each of them, as has `_posts._tcp.blog.internal`. The target of
/// an SRV record, like `posts-1.posts.blog.internal`, has the address of its instance. What is
/// registered under the name of a host is told by SRV records alone.
pub struct DnsResponder {
    address: SocketAddr,
    _end: DropGuard,
}

impl DnsResponder {
    /// Serves `zone` at `address`; with port 0 at a free one.
    ///
    /// # Errors
    /// `Invalid` for a zone that is no name; `Unavailable` where the address is taken or not
    /// permitted.
    pub async fn start(
        registry: Arc<dyn ServiceRegistry>,
        zone: &str,
        address: SocketAddr,
    ) -> Result<Self> {
        let taken = |error| {
            let message = "the address cannot be listened on; choose another one";
            let error = Error::new(ErrorKind::Unavailable, "serve a zone", message).because(error);
            error.on("dns").with("address", address)
        };
        let streams = TcpListener::bind(address).await.map_err(taken)?;
        let address = streams.local_addr().map_err(taken)?;
        let datagrams = Arc::new(UdpSocket::bind(address).await.map_err(taken)?);
        let zone = Arc::new(Zone { registry, name: name(zone)?.to_lowercase() });
        let end = CancellationToken::new();
        let served = end.clone();
        tokio::spawn(async move {
            let both = async {
                tokio::join!(serve_datagrams(zone.clone(), datagrams), serve_streams(zone, streams))
            };
            tokio::select! {
                _ = both => {}
                () = served.cancelled() => {}
            }
        });
        Ok(Self { address, _end: end.drop_guard() })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve_datagrams(zone: Arc<Zone>, socket: Arc<UdpSocket>) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = [0; 4096];
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        // An error is that of an answer before, which somebody did not want.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let Ok(question) = Message::from_vec(&buffer[..length]) else { continue };
        let (zone, socket) = (zone.clone(), socket.clone());
        tokio::spawn(async move {
            let limit = question.max_payload().min(DATAGRAM);
            let Some(answer) = zone.answer(&question).await else { return };
            let bytes = match answer.to_vec() {
                Ok(bytes) if bytes.len() <= limit.into() => bytes,
                _ => answer.truncate().to_vec().unwrap_or_default(),
            };
            let _ = socket.send_to(&bytes, from).await;
            drop(permit);
        });
    }
}

async fn serve_streams(zone: Arc<Zone>, listener: TcpListener) {
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    loop {
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let zone = zone.clone();
        tokio::spawn(async move {
            let _ = serve_stream(&zone, stream).await;
            drop(permit);
        });
    }
}

async fn serve_stream(zone: &Zone, mut stream: TcpStream) -> std::io::Result<()> {
    loop {
        let length = timeout(IDLE, stream.read_u16()).await??;
        let mut buffer = vec![0; length.into()];
        timeout(IDLE, stream.read_exact(&mut buffer)).await??;
        let question = Message::from_vec(&buffer).map_err(std::io::Error::other)?;
        let Some(answer) = zone.answer(&question).await else { return Ok(()) };
        let bytes = answer.to_vec().map_err(std::io::Error::other)?;
        let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &bytes].concat();
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}

struct Zone {
    registry: Arc<dyn ServiceRegistry>,
    name: Name,
}

/// What a name is of.
enum Owner {
    Zone,
    Service(ServiceName),
    /// An instance, by its label.
    Instance(ServiceName, String),
}

impl Zone {
    /// None for what is no question.
    async fn answer(&self, question: &Message) -> Option<Message> {
        let asked = &question.metadata;
        if asked.message_type != MessageType::Query {
            return None;
        }
        let mut answer = Message::response(asked.id, asked.op_code);
        answer.metadata.recursion_desired = asked.recursion_desired;
        answer.add_queries(question.queries.iter().cloned());
        answer.metadata.response_code = match question.queries.as_slice() {
            _ if asked.op_code != OpCode::Query => ResponseCode::NotImp,
            [query] if self.name.zone_of(&query.name) => {
                answer.metadata.authoritative = true;
                let found = self.fill(&mut answer, &query.name, query.query_type);
                match timeout(CALL, found).await {
                    Ok(Ok(code)) => code,
                    failed => {
                        tracing::warn!(name = %query.name, ?failed, "a name is not resolved");
                        ResponseCode::ServFail
                    }
                }
            }
            [_] => ResponseCode::Refused,
            _ => ResponseCode::FormErr,
        };
        if answer.metadata.authoritative && answer.answers.is_empty() {
            answer.add_authority(self.soa());
        }
        Some(answer)
    }

    fn soa(&self) -> Record {
        let (server, contact) = (self.name.clone(), self.name.clone());
        let ttl = i32::try_from(TTL).unwrap_or(i32::MAX);
        let soa = SOA::new(server, contact, 1, ttl, ttl, ttl, TTL);
        Record::from_rdata(self.name.clone(), TTL, RData::SOA(soa))
    }

    fn owner(&self, name: &Name) -> Option<Owner> {
        let own = usize::from(name.num_labels() - self.name.num_labels());
        let labels: Vec<_> = name.iter().take(own).map(String::from_utf8_lossy).collect();
        let labels: Vec<_> = labels.iter().map(|label| label.to_lowercase()).collect();
        match labels.as_slice() {
            [] => Some(Owner::Zone),
            [service] => Some(Owner::Service(ServiceName::new(service.as_str()).ok()?)),
            [service, protocol] if protocol == "_tcp" => {
                let service = service.strip_prefix('_')?;
                Some(Owner::Service(ServiceName::new(service).ok()?))
            }
            [label, service] => {
                Some(Owner::Instance(ServiceName::new(service.as_str()).ok()?, label.clone()))
            }
            _ => None,
        }
    }

    async fn fill(
        &self,
        answer: &mut Message,
        name: &Name,
        kind: RecordType,
    ) -> Result<ResponseCode> {
        let (service, only) = match self.owner(name) {
            None => return Ok(ResponseCode::NXDomain),
            Some(Owner::Zone) => {
                if kind == RecordType::SOA {
                    answer.add_answer(self.soa());
                }
                return Ok(ResponseCode::NoError);
            }
            Some(Owner::Service(service)) => (service, None),
            Some(Owner::Instance(service, label)) => (service, Some(label)),
        };
        let mut instances = self.registry.instances(&service).await?;
        instances.retain(|instance| only.as_ref().is_none_or(|only| *only == label(instance)));
        if instances.is_empty() {
            return Ok(ResponseCode::NXDomain);
        }
        for instance in &instances {
            let host = instance.address.host.parse::<IpAddr>().ok();
            let address = |name: &Name| Some(Record::from_rdata(name.clone(), TTL, host?.into()));
            let wanted = host.is_some_and(|host| match kind {
                RecordType::A => host.is_ipv4(),
                RecordType::AAAA => host.is_ipv6(),
                _ => false,
            });
            if wanted {
                answer.add_answers(address(name));
            }
            if kind == RecordType::SRV && only.is_none() {
                let target = match host {
                    Some(_) => self.target(&service, instance)?,
                    None => super::name(&instance.address.host)?,
                };
                let weight = instance.metadata.get("weight").and_then(|weight| weight.parse().ok());
                let port = instance.address.port;
                let srv = SRV::new(0, weight.unwrap_or(1), port, target.clone());
                answer.add_answer(Record::from_rdata(name.clone(), TTL, RData::SRV(srv)));
                answer.add_additionals(address(&target));
            }
        }
        Ok(ResponseCode::NoError)
    }

    fn target(&self, service: &ServiceName, instance: &Registered) -> Result<Name> {
        name(&format!("{}.{service}.{}", label(instance), self.name.to_ascii()))
    }
}

/// An instance's id, where that is a label; else a hash of it.
fn label(instance: &Registered) -> String {
    let id = instance.id.as_str();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let is_label = (1..=63).contains(&id.len())
        && id.chars().all(plain)
        && !id.starts_with('-')
        && !id.ends_with('-');
    if is_label { id.to_owned() } else { format!("i-{:016x}", hash(id.as_bytes())) }
}
