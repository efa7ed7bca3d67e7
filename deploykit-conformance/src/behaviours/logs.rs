//! Output of instances.

use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::Signal;
use deploykit_core::{Change, LogLine, LogQuery};
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::timeout;

use crate::test::{Test, name};

async fn lines(t: &Test, query: &LogQuery) -> Vec<LogLine> {
    t.deployer().logs(t.name(), query).await.unwrap().try_collect().await.unwrap()
}

pub(super) async fn lines_are_told_by_service_and_instance(t: &Test) {
    let web = t.service("web", "1").replicas(2).env(dial::PRINT, "it's \"here\" \u{e4}");
    t.up(t.build().service(web).service(t.service("other", "1")).validate().unwrap())
        .await
        .unwrap();
    let of_web = LogQuery { service: Some(name("web")), ..LogQuery::default() };
    let said = lines(t, &of_web).await;
    assert!(said.iter().all(|line| line.service == "web"), "{said:#?}");
    let here = |line: &&LogLine| line.line == "it's \"here\" \u{e4}";
    assert_eq!(said.iter().filter(here).count(), 2, "{said:#?}");
    let id = t.ids("web").await.remove(0);
    let of_one = LogQuery { instance: Some(id.clone()), tail: Some(1), ..LogQuery::default() };
    let said = lines(t, &of_one).await;
    assert_eq!(said.len(), 1, "{said:#?}");
    assert_eq!(
        (said[0].instance.as_str(), said[0].line.as_str()),
        (id.as_str(), "it's \"here\" \u{e4}")
    );
    let all = lines(t, &LogQuery::default()).await;
    assert!(all.iter().any(|line| line.service == "other"), "{all:#?}");
}

/// Follows the output until a line holds `text`.
async fn until(
    lines: &mut (impl StreamExt<Item = deploykit_core::Result<LogLine>> + Unpin),
    text: &str,
) {
    let found = async {
        while let Some(line) = lines.next().await {
            if line.unwrap().line.contains(text) {
                return true;
            }
        }
        false
    };
    assert!(timeout(Duration::from_secs(60), found).await.unwrap(), "it ended before `{text}`");
}

pub(super) async fn lines_are_followed(t: &Test) {
    t.up(t.web("1", 1)).await.unwrap();
    let query = LogQuery { service: Some(name("web")), follow: true, ..LogQuery::default() };
    let mut lines = t.deployer().logs(t.name(), &query).await.unwrap();
    until(&mut lines, &format!("started as {}", t.ids("web").await[0])).await;
    let restart = Change::Restart { app: t.name().clone(), service: name("web") };
    t.change(restart).await.unwrap();
    until(&mut lines, &format!("started as {}", t.ids("web").await[0])).await;
}

pub(super) async fn the_stop_signal_is_the_one_that_was_chosen(t: &Test) {
    let web = t.service("web", "1").stop_signal(Signal::Usr1).env(dial::DRAIN_MS, "500");
    t.up(t.only(web)).await.unwrap();
    let query = LogQuery { service: Some(name("web")), follow: true, ..LogQuery::default() };
    let mut lines = t.deployer().logs(t.name(), &query).await.unwrap();
    let scale = Change::Scale { app: t.name().clone(), service: name("web"), replicas: 0 };
    let (scaled, ()) = tokio::join!(t.change(scale), until(&mut lines, "stopping on Usr1"));
    scaled.unwrap();
}
