//! The engine over the in-memory host, on paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::*;
use deploykit_core::*;

fn image() -> ImageSpec {
    ImageSpec::binary("/usr/bin/env")
}

fn web(version: &str, replicas: u32, update: Update) -> App {
    let web = Service::build("web", image())
        .env("VERSION", version)
        .replicas(replicas)
        .port(Port::http(8080))
        .readiness(Probe::http("/healthz"))
        .update(update);
    App::build("shop").service(web).validate().unwrap()
}

fn bed() -> (Arc<Reconciler<memory::Host>>, Deployer) {
    let backend = Arc::new(Reconciler::new(memory::Host::new()));
    let deployer = Deployer::new(backend.clone());
    (backend, deployer)
}

async fn up(deployer: &Deployer, app: App) -> Result<Applied> {
    let ready = deployer.prepare(app).await?;
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
    deployer.apply(plan, &mut Silent).await
}

async fn change(deployer: &Deployer, change: Change) -> Result<Applied> {
    let plan = deployer.plan(change).await?;
    deployer.apply(plan, &mut Silent).await
}

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

async fn ids(deployer: &Deployer) -> Vec<String> {
    let mut ids: Vec<String> = deployer
        .status(&shop())
        .await
        .unwrap()
        .observation
        .instances
        .iter()
        .map(|i| i.id.clone())
        .collect();
    ids.sort();
    ids
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_app_takes_no_mutating_call() {
    let (backend, deployer) = bed();
    up(&deployer, web("1", 3, Update::rolling())).await.unwrap();
    let before = (backend.runtime().mutations(), ids(&deployer).await);
    let again = up(&deployer, web("1", 3, Update::rolling())).await.unwrap();
    assert_eq!((again.revision, again.steps), (Some(1), 0));
    assert_eq!((backend.runtime().mutations(), ids(&deployer).await), before);
}

#[tokio::test(start_paused = true)]
async fn every_strategy_replaces_every_instance() {
    let canary = |share| CanaryStep { share, hold: Duration::from_secs(5) };
    let updates = [
        Update::rolling(),
        Update::rolling().surge(0).unavailable(2),
        Update::rolling().surge(3).monitor(Duration::from_secs(3)),
        Update::recreate(),
        Update::blue_green(),
        Update::canary([canary("25%".parse().unwrap()), canary("50%".parse().unwrap())]),
    ];
    for update in updates {
        let (_, deployer) = bed();
        up(&deployer, web("1", 4, update.clone())).await.unwrap();
        let before = ids(&deployer).await;
        let done = up(&deployer, web("2", 4, update.clone())).await.unwrap();
        assert_eq!(done.revision, Some(2), "{update:?}");
        let after = ids(&deployer).await;
        assert_eq!(after.len(), 4, "{update:?}");
        assert!(after.iter().all(|id| !before.contains(id)), "{update:?}");
        let status = deployer.status(&shop()).await.unwrap();
        let endpoint = &status.observation.endpoints[&ServiceName::new("web").unwrap()];
        assert_eq!(endpoint.routed.iter().cloned().collect::<Vec<_>>(), after, "{update:?}");
        assert!(status.observation.instances.iter().all(|i| i.ready));
    }
}

#[tokio::test(start_paused = true)]
async fn scale_restart_rollback_and_remove() {
    let (_, deployer) = bed();
    let service = ServiceName::new("web").unwrap();
    up(&deployer, web("1", 2, Update::rolling())).await.unwrap();
    let two = ids(&deployer).await;
    let scale = Change::Scale { app: shop(), service: service.clone(), replicas: 4 };
    change(&deployer, scale).await.unwrap();
    let four = ids(&deployer).await;
    assert_eq!(four.len(), 4);
    assert!(two.iter().all(|id| four.contains(id)), "scaling keeps what runs");

    change(&deployer, Change::Restart { app: shop(), service: service.clone() }).await.unwrap();
    let restarted = ids(&deployer).await;
    assert!(restarted.iter().all(|id| !four.contains(id)));

    let plan = deployer.plan(Change::Rollback { app: shop(), to: Some(1) }).await.unwrap();
    deployer.apply(plan, &mut Silent).await.unwrap();
    assert_eq!(ids(&deployer).await.len(), 2);
    let history = deployer.history(&shop()).await.unwrap();
    let causes: Vec<_> = history.iter().map(|r| r.cause.as_str()).collect();
    assert_eq!(causes, ["deploy", "scale web to 4", "restart web", "rollback to 1"]);

    change(&deployer, Change::Remove { app: shop(), volumes: false }).await.unwrap();
    let status = deployer.status(&shop()).await.unwrap();
    assert!(status.observation.is_empty() && status.revision.is_none());
}

#[tokio::test]
async fn what_becomes_of_images_is_reported() {
    let (_, deployer) = bed();
    let mut told = Vec::new();
    let mut tell = |event: &Event| told.push(event.clone());
    deployer.prepare_with(web("1", 2, Update::rolling()), &mut tell).await.unwrap();
    let ready = Event::Image { image: image().to_string(), message: "ready".into() };
    assert_eq!(told, [ready]);
}

#[tokio::test(start_paused = true)]
async fn a_stale_plan_is_refused_and_nothing_changes() {
    let (backend, deployer) = bed();
    up(&deployer, web("1", 2, Update::rolling())).await.unwrap();
    let ready = deployer.prepare(web("2", 2, Update::rolling())).await.unwrap();
    let stale = deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    up(&deployer, web("3", 2, Update::rolling())).await.unwrap();
    let before = backend.runtime().mutations();
    let error = deployer.apply(stale, &mut Silent).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "apply the plan: the plan is stale: another revision was applied since; plan again \
         (backend memory, app shop)"
    );
    assert_eq!(backend.runtime().mutations(), before);
}

#[tokio::test(start_paused = true)]
async fn a_plan_file_that_was_edited_is_refused() {
    let (_, deployer) = bed();
    let ready = deployer.prepare(web("1", 2, Update::rolling())).await.unwrap();
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    let text = plan.to_json().unwrap();
    assert_eq!(Plan::from_json(&text).unwrap(), plan);
    let edited = text.replace("\"VERSION\": \"1\"", "\"VERSION\": \"2\"");
    assert_ne!(edited, text);
    let error = Plan::from_json(&edited).unwrap_err();
    assert_eq!(
        error.to_string(),
        "read the plan: 1 problem\n  - digest: the plan was changed after it was made (change \
         the app and make a new plan)"
    );
}
