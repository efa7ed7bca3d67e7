//! From a change's being asked for to its being told by a watch, against the raw clients'.

use std::time::Instant;

use deploykit::ServiceRegistry;
use deploykit::model::ServiceName;
use deploykit_benches::{Goal, Result, median, ratio};
use deploykit_registry::{Etcd, RegistryConfig, ZooKeeper};
use etcd_client::WatchOptions;
use futures_util::StreamExt;
use zookeeper_client::{Acls, AddWatchMode, CreateMode};

use crate::servers::Servers;

/// Changes of ours and theirs, by turns.
const CHANGES: u16 = 500;

fn tell(name: &str, ours: Vec<f64>, theirs: Vec<f64>) {
    let (ours, theirs) = (median(ours), median(theirs));
    println!("# {name}: ours {:.3} ms, the raw client {:.3} ms", ours * 1e3, theirs * 1e3);
    ratio(name, ours / theirs, Goal::AtMost(1.1));
}

pub(crate) async fn run(servers: &Servers) -> Result<()> {
    etcd(servers).await?;
    zookeeper(servers).await
}

async fn etcd(servers: &Servers) -> Result<()> {
    let etcd = Etcd::open(RegistryConfig::from_url(&servers.etcd_url("watch"))?).await?;
    let service = ServiceName::new("posts")?;
    let mut lists = etcd.watch(&service).await?;
    lists.next().await;
    let mut watching = servers.etcd().await?;
    let options = WatchOptions::new().with_prefix();
    let mut events = watching.watch("theirs/posts/", Some(options)).await?;
    events.message().await?;
    let mut raw = servers.etcd().await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for port in 1..=CHANGES {
        let value = format!(r#"{{"Op":0,"Addr":"10.0.0.1:{port}","Metadata":null}}"#);
        let started = Instant::now();
        raw.put("watch/posts/one", value.clone(), None).await?;
        while !matches!(lists.next().await, Some(Ok(list)) if list[0].address.port == port) {}
        ours.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        raw.put("theirs/posts/one", value, None).await?;
        while events.message().await?.is_none_or(|message| message.events().is_empty()) {}
        theirs.push(started.elapsed().as_secs_f64());
    }
    tell("watch_latency_etcd", ours, theirs);
    Ok(())
}

async fn zookeeper(servers: &Servers) -> Result<()> {
    let url = servers.zookeeper_url("watch");
    let zookeeper = ZooKeeper::open(RegistryConfig::from_url(&url)?).await?;
    let service = ServiceName::new("posts")?;
    let raw = servers.zookeeper().await?;
    let acls = Acls::anyone_all();
    let options = CreateMode::Persistent.with_acls(acls);
    for folder in ["/watch", "/watch/posts", "/theirs", "/theirs/posts"] {
        raw.create(folder, b"", &options).await?;
    }
    for node in ["/watch/posts/one", "/theirs/posts/one"] {
        raw.create(node, b"", &options).await?;
    }
    let mut lists = zookeeper.watch(&service).await?;
    lists.next().await;
    let watching = servers.zookeeper().await?;
    let mut events = watching.watch("/theirs/posts", AddWatchMode::PersistentRecursive).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for port in 1..=CHANGES {
        let value = format!(
            r#"{{"name":"posts","id":"one","address":"10.0.0.1","port":{port},"sslPort":null,"payload":null,"registrationTimeUTC":1,"serviceType":"DYNAMIC","uriSpec":null}}"#
        );
        let started = Instant::now();
        raw.set_data("/watch/posts/one", value.as_bytes(), None).await?;
        while !matches!(lists.next().await, Some(Ok(list)) if list[0].address.port == port) {}
        ours.push(started.elapsed().as_secs_f64());
        let started = Instant::now();
        raw.set_data("/theirs/posts/one", value.as_bytes(), None).await?;
        // The event says which node has changed, and not what it holds.
        let event = events.changed().await;
        watching.get_data(&event.path).await?;
        theirs.push(started.elapsed().as_secs_f64());
    }
    tell("watch_latency_zookeeper", ours, theirs);
    Ok(())
}
