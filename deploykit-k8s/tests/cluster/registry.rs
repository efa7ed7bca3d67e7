//! Services found by the cluster's own discovery.

use std::time::Duration;

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{Change, ErrorKind, Registered, Result, ServiceRegistry, Silent};
use deploykit_k8s::K8s;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use super::{Bed, config, kubectl, web};

const ZONE: &str = "topology.kubernetes.io/zone";
const PATIENCE: Duration = Duration::from_secs(60);

type Lists = BoxStream<'static, Result<Vec<Registered>>>;

/// The first list of that many.
async fn until(lists: &mut Lists, count: usize) -> Vec<Registered> {
    let found = async {
        loop {
            let list = lists.next().await.unwrap().unwrap();
            if list.len() == count {
                return list;
            }
        }
    };
    tokio::time::timeout(PATIENCE, found).await.expect("a list of that many")
}

pub(crate) async fn pods_are_found_with_their_zone_while_they_are_ready() {
    kubectl(&["label", "node", "--all", "--overwrite", &format!("{ZONE}=east")], "");
    let bed = Bed::new().await;
    let service = ServiceName::new("web").unwrap();
    let cluster = K8s::open(config()).await.unwrap();
    let registry = cluster.registry(bed.app.clone());
    let mut lists = registry.watch(&service).await.unwrap();
    assert!(until(&mut lists, 0).await.is_empty());
    bed.up(bed.only(web().replicas(2))).await.unwrap();
    let found = until(&mut lists, 2).await;
    assert_eq!(registry.instances(&service).await.unwrap(), found);
    let seen = bed.deployer.backend().observe(&bed.app).await.unwrap();
    for instance in &found {
        let pod = seen.instance(&instance.id).expect("an instance of the app");
        assert_eq!(pod.addresses[0], instance.address);
        assert_eq!(instance.metadata["zone"], "east");
        assert!(!instance.metadata["node"].is_empty());
    }

    // A pod that is not ready is not found, though it runs.
    let scale = Change::Scale { app: bed.app.clone(), service: service.clone(), replicas: 3 };
    let plan = bed.deployer.plan(scale).await.unwrap();
    bed.deployer.apply(plan, &mut Silent).await.unwrap();
    let three = until(&mut lists, 3).await;
    cluster.kill(&bed.app, &three[0].id).await.unwrap();
    let two = until(&mut lists, 2).await;
    assert!(!two.contains(&three[0]), "{two:?}");
    let again = until(&mut lists, 3).await;
    assert!(!again.iter().any(|instance| instance.id == three[0].id), "{again:?}");

    let mine = Registered::new(service.clone(), "mine", three[0].address.clone());
    let refused = registry.register(mine, PATIENCE).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let nobody = cluster.registry(AppName::new("nobody").unwrap());
    assert!(nobody.instances(&service).await.unwrap().is_empty());
    bed.down().await;
    until(&mut lists, 0).await;
    kubectl(&["label", "node", "--all", &format!("{ZONE}-")], "");
}
