//! A thousand registrations at once, against a lease and a put for each.

use std::time::{Duration, Instant};

use deploykit::model::{Address, ServiceName};
use deploykit::{Registered, ServiceRegistry};
use deploykit_benches::{Goal, Result, median, ratio};
use deploykit_registry::{Etcd, RegistryConfig};
use etcd_client::PutOptions;
use futures_util::future::try_join_all;

use crate::servers::Servers;

const ROUNDS: usize = 5;

const INSTANCES: usize = 1000;

pub(crate) async fn run(servers: &Servers) -> Result<()> {
    let raw = servers.etcd().await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let etcd = Etcd::open(RegistryConfig::from_url(&servers.etcd_url("ours"))?).await?;
        let service = ServiceName::new(format!("posts-{round}"))?;
        let register = (0..INSTANCES).map(|id| {
            let address = Address { host: "10.0.0.1".into(), port: 80 };
            let instance = Registered::new(service.clone(), format!("posts-{id}"), address);
            etcd.register(instance, Duration::from_secs(60))
        });
        let started = Instant::now();
        let held = try_join_all(register).await?;
        ours.push(started.elapsed().as_secs_f64());
        let found = etcd.instances(&service).await?.len();
        if found != INSTANCES {
            return Err(format!("{found} instances are registered, not {INSTANCES}").into());
        }
        // Before the other's turn: taking them back is not to be measured with that.
        try_join_all(held.into_iter().map(|registration| registration.deregister())).await?;

        let register = (0..INSTANCES).map(|id| {
            let mut raw = raw.clone();
            async move {
                let lease = raw.lease_grant(60, None).await?.id();
                let value = r#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":null}"#;
                let options = PutOptions::new().with_lease(lease);
                raw.put(format!("theirs/{round}/{id}"), value, Some(options)).await
            }
        });
        let started = Instant::now();
        try_join_all(register).await?;
        theirs.push(started.elapsed().as_secs_f64());
    }
    let each = median(ours.iter().zip(&theirs).map(|(one, other)| one / other));
    let (ours, theirs) = (median(ours) * 1000.0, median(theirs) * 1000.0);
    println!(
        "# {INSTANCES} registrations at once: ours {ours:.1} ms, as many leases and puts at once \
         with the raw client {theirs:.1} ms"
    );
    ratio("register_1000", each, Goal::AtMost(0.12));
    Ok(())
}
