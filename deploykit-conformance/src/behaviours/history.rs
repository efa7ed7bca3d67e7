//! Revisions.

use deploykit_core::model::{App, SecretName};
use deploykit_core::{Change, ErrorKind, Outcome, SecretValue};

use crate::test::Test;

pub(super) async fn so_many_revisions_are_kept(t: &Test) {
    let app = |version: &str| -> App {
        t.build().keep_revisions(3).service(t.service("web", version)).validate().unwrap()
    };
    for version in ["1", "2", "3", "4", "5"] {
        t.up(app(version)).await.unwrap();
    }
    let numbers = |history: Vec<deploykit_core::Revision>| {
        history.iter().map(|r| r.number).collect::<Vec<_>>()
    };
    let history = t.history().await;
    assert!(history.iter().all(|r| r.outcome == Outcome::Succeeded && !r.by.is_empty()));
    assert!(history.iter().all(|r| r.finished_at.is_some_and(|end| end >= r.started_at)));
    assert_eq!(numbers(history), [3, 4, 5]);
    let rollback = |to| t.change(Change::Rollback { app: t.name().clone(), to: Some(to) });
    let gone = rollback(1).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert!(gone.to_string().contains("kept are 3, 4, 5"), "{gone}");
    rollback(3).await.unwrap();
    assert_eq!(t.version("web").await, "3");
    assert_eq!(numbers(t.history().await), [4, 5, 6]);
}

pub(super) async fn a_rollback_brings_the_whole_app_back(t: &Test) {
    let app = |version: &str| -> App {
        let web = t.service("web", version).replicas(2).secret("db").config("title");
        let build = t.build().config("title", format!("title {version}"));
        let build = build.service(web).service(t.service("other", version));
        let only_new = t.service("third", version);
        if version == "1" { build } else { build.service(only_new) }.validate().unwrap()
    };
    let db = SecretName::new("db").unwrap();
    for version in ["1", "2"] {
        let secrets = t.deployer().secrets(t.name());
        secrets.put(&db, SecretValue::new(format!("value {version}"))).await.unwrap();
        t.up(app(version)).await.unwrap();
    }
    let load = t.load("web").await;
    t.change(Change::Rollback { app: t.name().clone(), to: None }).await.unwrap();
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    assert_eq!((t.version("web").await, t.version("other").await), ("1".into(), "1".into()));
    assert_eq!(t.file("web", "SECRETS_DIR", "db").await.body, "value 1");
    assert_eq!(t.file("web", "CONFIGS_DIR", "title").await.body, "title 1");
    assert!(t.ids("third").await.is_empty(), "what was not there is not there");
    let history = t.history().await;
    assert_eq!((history.len(), history[2].cause.as_str()), (3, "rollback to 1"));
    assert_eq!(history[2].app, history[0].app);
}
