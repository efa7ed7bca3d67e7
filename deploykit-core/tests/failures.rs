//! What goes wrong, and what is left of it: the engine over the in-memory host, on paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::*;
use deploykit_core::*;

fn service(name: &str) -> ServiceBuilder {
    Service::build(name, ImageSpec::binary("/usr/bin/env"))
        .port(Port::http(8080))
        .readiness(Probe::http("/healthz"))
        .update(Update::rolling().progress_deadline(Duration::from_secs(20)))
}

fn bed() -> (Arc<Reconciler<memory::Host>>, Deployer) {
    let backend = Arc::new(Reconciler::new(memory::Host::new()));
    let deployer = Deployer::new(backend.clone());
    (backend, deployer)
}

async fn up(deployer: &Deployer, app: AppBuilder) -> Result<Applied> {
    let ready = deployer.prepare(app.validate().unwrap()).await?;
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
    deployer.apply(plan, &mut Silent).await
}

fn shop() -> AppName {
    AppName::new("shop").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_rolls_the_whole_app_back() {
    let (_, deployer) = bed();
    let app = |version: &str, broken: bool| {
        let web = service("web").replicas(3).env("V", version);
        let web = if broken { web.env(dial::UNHEALTHY_AFTER_MS, "0") } else { web };
        App::build("shop").service(web).service(service("side").env("V", version))
    };
    up(&deployer, app("1", false)).await.unwrap();
    let before = deployer.status(&shop()).await.unwrap().observation;
    let error = up(&deployer, app("2", true)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(
        error.message().ends_with("the app was rolled back to revision 1 as revision 3"),
        "{error}"
    );
    let probes = |d: &Diagnosis| matches!(&d.reason, Reason::ProbeFailing { .. });
    assert!(error.diagnoses().iter().any(probes), "{error}");
    let history = deployer.history(&shop()).await.unwrap();
    let words: Vec<_> = history.iter().map(|r| r.outcome.word()).collect();
    assert_eq!(words, ["succeeded", "failed", "succeeded"]);
    assert_eq!(history[0].app, history[2].app);
    let after = deployer.status(&shop()).await.unwrap().observation;
    assert_eq!(after.instances.len(), before.instances.len());
    assert!(after.instances.iter().all(|i| i.ready && i.restarts == 0));
    let hashes = |o: &Observation| {
        let mut h: Vec<_> = o.instances.iter().map(|i| i.hash.clone()).collect();
        h.sort();
        h
    };
    assert_eq!(hashes(&after), hashes(&before));
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_told_with_its_exit_code_before_the_deadline() {
    let (_, deployer) = bed();
    let web = service("web")
        .env(dial::HEALTHY_AFTER_MS, "1000")
        .env(dial::EXIT_AFTER_MS, "10")
        .env(dial::EXIT_CODE, "7");
    let error = up(&deployer, App::build("shop").service(web)).await.unwrap_err();
    let reasons: Vec<_> = error.diagnoses().iter().map(|d| &d.reason).collect();
    assert!(
        matches!(reasons[..], [Reason::CrashLoop { exit, .. }] if exit == "exit code 7"),
        "{error}"
    );
    assert!(error.message().contains("no earlier revision has succeeded"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn pause_leaves_everything_and_continue_goes_on() {
    for (policy, second) in [(OnFailure::Pause, 0), (OnFailure::Continue, 1)] {
        let (_, deployer) = bed();
        let update = Update::rolling().progress_deadline(Duration::from_secs(5)).on_failure(policy);
        let bad = service("bad").env(dial::UNHEALTHY_AFTER_MS, "0").update(update);
        let app = |bad: ServiceBuilder| {
            let late = service("late").env(dial::START_DELAY_MS, "8000");
            App::build("shop").service(bad).service(late)
        };
        let error = up(&deployer, app(bad)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Failed);
        let seen = deployer.status(&shop()).await.unwrap().observation;
        let late = ServiceName::new("late").unwrap();
        assert_eq!(seen.of(&late).filter(|i| i.ready).count(), second, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn jobs_run_once_and_gate_what_waits_for_them() {
    let (_, deployer) = bed();
    let app = |version: &str| {
        let job = Job::build("migrate", ImageSpec::binary("/usr/bin/env"))
            .env(dial::EXIT_AFTER_MS, "500")
            .env("V", version);
        let web = service("web").depends_on("migrate", Condition::Completed).env("W", version);
        App::build("shop").job(job).service(web)
    };
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let ready = deployer.prepare(app("1").validate().unwrap()).await.unwrap();
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
    let log = Arc::clone(&order);
    let mut progress = move |event: &Event| {
        if let Event::Instance { service, change: InstanceChange::Started, .. } = event {
            log.lock().unwrap().push(format!("{service} started"));
        } else if let Event::StepFinished { goal, .. } = event {
            log.lock().unwrap().push(goal.to_string());
        }
    };
    deployer.apply(plan, &mut progress).await.unwrap();
    let order = order.lock().unwrap().clone();
    let expected = [
        "migrate started",
        "job migrate",
        "web started",
        "service web",
        "collect what no revision names",
    ];
    assert_eq!(order, expected);

    let again = up(&deployer, app("1")).await.unwrap();
    assert_eq!(again.steps, 0);
    up(&deployer, app("2")).await.unwrap();
    let plan = deployer.plan(Change::Rollback { app: shop(), to: Some(1) }).await.unwrap();
    assert!(!plan.steps().iter().any(|s| matches!(s.goal, Goal::Job { .. })), "{plan}");
    deployer.apply(plan, &mut Silent).await.unwrap();
    let plan = deployer
        .plan(Change::RunJob { app: shop(), job: ServiceName::new("migrate").unwrap() })
        .await
        .unwrap();
    assert_eq!(plan.to_string().lines().nth(1), Some("  ~ job migrate: asked for"));
    deployer.apply(plan, &mut Silent).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_second_deployer_is_refused_by_name() {
    let (_, deployer) = bed();
    let slow = |v: &str| {
        App::build("shop").service(service("web").env("V", v).env(dial::START_DELAY_MS, "10000"))
    };
    let first = deployer.clone().with_holder("alice");
    let task = tokio::spawn(async move { up(&first, slow("1")).await });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let second = deployer.clone().with_holder("bob");
    let error = up(&second, slow("2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("alice"), "{error}");
    task.await.unwrap().unwrap();
}

/// A deployer that is gone between any two events leaves nothing that the next one does not mend.
#[tokio::test(start_paused = true)]
async fn an_apply_that_is_dropped_at_any_event_converges() {
    let app = |version: &str| {
        let job = Job::build("migrate", ImageSpec::binary("/usr/bin/env"))
            .env(dial::EXIT_AFTER_MS, "50")
            .env("V", version);
        let web = service("web").replicas(3).env("V", version);
        App::build("shop").job(job).service(web).service(service("side").env("V", version))
    };
    for stop_at in 1..60 {
        let (_, deployer) = bed();
        let deployer = deployer.with_lock_wait(Duration::from_secs(60));
        up(&deployer, app("1")).await.unwrap();
        let ready = deployer.prepare(app("2").validate().unwrap()).await.unwrap();
        let plan = deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
        let (tell, told) = tokio::sync::oneshot::channel();
        let (mut tell, mut count) = (Some(tell), 0);
        let mut progress = move |_: &Event| {
            count += 1;
            if count == stop_at {
                tell.take().map(|t: tokio::sync::oneshot::Sender<()>| t.send(()));
            }
        };
        let dropped = tokio::select! {
            biased;
            Ok(()) = told => true,
            done = deployer.apply(plan, &mut progress) => { done.unwrap(); false }
        };
        let done = up(&deployer, app("2")).await.unwrap();
        let seen = deployer.status(&shop()).await.unwrap().observation;
        let services = seen.instances.iter().filter(|i| i.exit().is_none()).count();
        assert_eq!(services, 4, "stopped at event {stop_at}");
        assert!(done.revision >= Some(2));
        assert_eq!(up(&deployer, app("2")).await.unwrap().steps, 0);
        if !dropped {
            return;
        }
    }
    panic!("the apply has more events than this test expects");
}
