//! What a backend runs is found as in a registry.

use deploykit_core::{AppRegistry, Change, ErrorKind, Registered, ServiceRegistry};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::test::{Test, name};

type Lists = BoxStream<'static, deploykit_core::Result<Vec<Registered>>>;

/// The first list of which `is_it` holds.
async fn until(lists: &mut Lists, what: &str, is_it: impl Fn(&[Registered]) -> bool) {
    let mut last = None;
    let found = tokio::time::timeout(crate::test::PATIENCE, async {
        loop {
            let list = lists.next().await.expect("a watch goes on");
            if list.as_ref().is_ok_and(|list| is_it(list)) {
                return;
            }
            last = Some(list);
        }
    });
    assert!(found.await.is_ok(), "{what}: {last:#?}");
}

pub(super) async fn what_is_ready_is_found_where_it_runs(t: &Test) {
    let registry = AppRegistry::new(t.deployer().backend().clone(), t.name().clone());
    let web = name("web");
    let mut lists = registry.watch(&web).await.unwrap();
    until(&mut lists, "nothing yet", <[_]>::is_empty).await;
    t.up(t.web("1", 2)).await.unwrap();
    until(&mut lists, "both", |list| list.len() == 2).await;
    let found = registry.instances(&web).await.unwrap();
    let ids: Vec<&String> = found.iter().map(|instance| &instance.id).collect();
    assert_eq!(ids, t.ids("web").await.iter().collect::<Vec<_>>());
    assert!(found.iter().all(|i| !i.address.host.is_empty() && i.address.port > 0), "{found:?}");

    let scale = Change::Scale { app: t.name().clone(), service: web.clone(), replicas: 3 };
    t.change(scale).await.unwrap();
    until(&mut lists, "one more", |list| list.len() == 3).await;
    t.up(t.web("2", 3)).await.unwrap();
    let newest = t.history().await.last().unwrap().number.to_string();
    let of_newest = |list: &[Registered]| {
        list.len() == 3 && list.iter().all(|i| i.metadata["revision"] == newest)
    };
    until(&mut lists, "the new ones alone", of_newest).await;

    let at = found[0].address.clone();
    let mine = Registered::new(web, "mine", at);
    let refused = registry.register(mine, crate::test::PATIENCE).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    t.change(Change::Remove { app: t.name().clone(), volumes: true }).await.unwrap();
    until(&mut lists, "nothing any more", <[_]>::is_empty).await;
}
