//! Removal.

use deploykit_core::{Change, SecretValue};

use crate::kit::left_of;
use crate::test::Test;

pub(super) async fn nothing_is_left_but_volumes(t: &Test) {
    let app = || {
        let web = t.service("web", "1").replicas(2).volume("data").secret("db").config("title");
        let build = t.build().volume("data", Default::default()).config("title", "hello");
        build.service(web).job(t.job("setup")).validate().unwrap()
    };
    let secret = deploykit_core::model::SecretName::new("db").unwrap();
    let put = || async {
        let secrets = t.deployer().secrets(t.name());
        secrets.put(&secret, SecretValue::new("value")).await.unwrap()
    };
    put().await;
    t.up(app()).await.unwrap();
    t.write("web", "data/note", "kept").await;
    let remove = |volumes| t.change(Change::Remove { app: t.name().clone(), volumes });
    let done = remove(false).await.unwrap();
    let kept: Vec<&str> = done.kept_volumes.iter().map(|v| v.as_str()).collect();
    assert_eq!((done.revision, kept), (None, vec!["data"]));
    assert_eq!(left_of(t).await.unwrap(), ["volume data"]);
    assert!(!t.deployer().apps().await.unwrap().contains(t.name()));

    put().await;
    t.up(app()).await.unwrap();
    assert_eq!(t.file("web", "VOLUMES_DIR", "data/note").await.body, "kept");
    remove(false).await.unwrap();
    let done = remove(true).await.unwrap();
    assert!(done.kept_volumes.is_empty());
    assert!(left_of(t).await.unwrap().is_empty());

    // Secrets of an app that is not deployed.
    put().await;
    remove(false).await.unwrap();
    assert!(left_of(t).await.unwrap().is_empty());
}

pub(super) async fn what_is_not_there_takes_no_step(t: &Test) {
    let change = Change::Remove { app: t.name().clone(), volumes: true };
    let plan = t.deployer().plan(change).await.unwrap();
    assert!(plan.is_empty(), "{plan}");
    let done = t.deployer().apply(plan, &mut deploykit_core::Silent).await.unwrap();
    assert_eq!((done.steps, t.calls()), (0, 0));
}
