//! A zone that is served from a registry, read by this crate and by `dig`.
#![cfg(feature = "dns")]
#![allow(clippy::unwrap_used)]

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::{Address, ServiceName};
use deploykit_core::{ErrorKind, Registered, Registration, ServiceRegistry, memory};
use deploykit_registry::{Dns, DnsResponder, RegistryConfig};
use futures_util::StreamExt;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, Record, RecordType};
use tokio::net::UdpSocket;

fn posts() -> ServiceName {
    ServiceName::new("posts").unwrap()
}

fn instance(id: &str, host: &str, port: u16) -> Registered {
    Registered::new(posts(), id, Address { host: host.into(), port })
}

struct Bed {
    registry: memory::Registry,
    responder: DnsResponder,
}

impl Bed {
    async fn start() -> Self {
        let registry = memory::Registry::default();
        let address = "127.0.0.1:0".parse().unwrap();
        let serving = Arc::new(registry.clone());
        let responder = DnsResponder::start(serving, "blog.internal", address).await.unwrap();
        Self { registry, responder }
    }

    async fn register(&self, instance: Registered) -> Box<dyn Registration> {
        self.registry.register(instance, Duration::from_secs(10)).await.unwrap()
    }

    fn dns(&self, zone: &str) -> Dns {
        let url = format!("dns://{}/{zone}", self.responder.address());
        Dns::new(RegistryConfig::from_url(&url).unwrap()).unwrap()
    }
}

#[tokio::test]
async fn what_is_registered_is_read_and_followed() {
    let bed = Bed::start().await;
    let mut all = vec![
        instance("posts-1", "10.0.0.1", 80),
        instance("posts-2", "2001:db8::2", 8080),
        instance("posts-3", "posts.example.org", 80),
    ];
    all[0].metadata.insert("weight".into(), "3".into());
    let mut held = Vec::new();
    for instance in &all {
        held.push(bed.register(instance.clone()).await);
    }
    let dns = bed.dns("blog.internal");
    let mut lists = dns.watch(&posts()).await.unwrap();
    let mut expected = all.clone();
    // Elsewhere in the DNS it is known by its name alone.
    expected[2].id = "posts".into();
    expected.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(lists.next().await.unwrap().unwrap(), expected);
    held.remove(1).deregister().await.unwrap();
    expected.retain(|instance| instance.id != "posts-2");
    assert_eq!(lists.next().await.unwrap().unwrap(), expected);
    let strange = bed.register(instance("Strange/id", "10.0.0.9", 80)).await;
    let list = lists.next().await.unwrap().unwrap();
    assert!(list.iter().any(|instance| instance.address.host == "10.0.0.9"), "{list:?}");
    drop(strange);

    let unknown = ServiceName::new("unknown").unwrap();
    assert_eq!(dns.instances(&unknown).await.unwrap(), []);
    let refused = dns.register(instance("x", "10.0.0.1", 80), Duration::from_secs(1)).await;
    assert_eq!(refused.err().unwrap().kind(), ErrorKind::Unsupported);
    let elsewhere = bed.dns("other.internal").instances(&posts()).await;
    assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::Failed, "not its zone");
}

#[tokio::test]
async fn more_than_a_datagram_has_room_for() {
    let bed = Bed::start().await;
    let mut held = Vec::new();
    for id in 0..300 {
        let host = format!("10.0.{}.{}", id / 100, id % 100 + 1);
        held.push(bed.register(instance(&format!("posts-{id:03}"), &host, 80)).await);
    }
    let found = bed.dns("blog.internal").instances(&posts()).await.unwrap();
    assert_eq!(found, bed.registry.instances(&posts()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn dig_resolves_it() {
    let bed = Bed::start().await;
    let _one = bed.register(instance("posts-1", "10.0.0.1", 8080)).await;
    let _two = bed.register(instance("posts-2", "10.0.0.2", 8081)).await;
    let dig = std::env::var("DEPLOYKIT_TEST_DIG").unwrap_or("dig".into());
    let port = bed.responder.address().port().to_string();
    let ask = |arguments: &[&str]| {
        let mut command = Command::new(&dig);
        command.args(["@127.0.0.1", "-p", &port, "+short"]).args(arguments);
        let output = command.output().ok()?;
        assert!(output.status.success(), "{output:?}");
        let mut lines: Vec<_> =
            String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
        lines.sort_unstable();
        Some(lines)
    };
    let Some(found) = ask(&["posts.blog.internal"]) else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "dig is not installed");
        return println!("skipped: dig is not installed; `testbed/run` installs it");
    };
    assert_eq!(found, ["10.0.0.1", "10.0.0.2"]);
    let targets =
        ["0 1 8080 posts-1.posts.blog.internal.", "0 1 8081 posts-2.posts.blog.internal."];
    assert_eq!(ask(&["SRV", "_posts._tcp.blog.internal"]).unwrap(), targets);
    assert_eq!(ask(&["SRV", "POSTS.blog.INTERNAL", "+tcp"]).unwrap(), targets);
    assert_eq!(ask(&["posts-2.posts.blog.internal"]).unwrap(), ["10.0.0.2"]);
    assert_eq!(ask(&["AAAA", "posts.blog.internal"]).unwrap(), Vec::<String>::new());
}

/// A name server that knows addresses only, and somebody who answers before it what was not asked.
#[tokio::test]
async fn addresses_without_ports() {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..length]).unwrap();
            let asked = &question.metadata;
            let mut answer = Message::response(asked.id, asked.op_code);
            answer.add_queries(question.queries.iter().cloned());
            let query = &question.queries[0];
            let host = |last| RData::from(Ipv4Addr::new(10, 0, 0, last));
            let record = |last| Record::from_rdata(query.name.clone(), 60, host(last));
            match query.query_type {
                RecordType::A => _ = answer.add_answers([record(2), record(1)]),
                _ => answer.metadata.response_code = ResponseCode::NoError,
            }
            let mut forged = answer.clone();
            forged.metadata.id = asked.id.wrapping_add(1);
            forged.answers = vec![record(66)];
            for message in [forged, answer] {
                socket.send_to(&message.to_vec().unwrap(), from).await.unwrap();
            }
        }
    });
    let read = async |query: &str| {
        let url = format!("dns://{server}/blog.internal{query}");
        let registry = deploykit_registry::open(&url).await.unwrap();
        registry.instances(&posts()).await.unwrap()
    };
    let expected = [instance("10.0.0.1", "10.0.0.1", 80), instance("10.0.0.2", "10.0.0.2", 80)];
    assert_eq!(read("?port=80").await, expected);
    assert_eq!(read("").await, [], "where they listen is not known");
}
