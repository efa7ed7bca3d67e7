//! Updates that fail: why, and what then.

use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::{App, OnFailure, ServiceBuilder, Update};
use deploykit_core::{Diagnosis, Error, ErrorKind, Outcome, Reason};

use crate::test::Test;

fn rolling() -> Update {
    Update::rolling().progress_deadline(Duration::from_secs(4))
}

/// The reasons that an error gives for a service.
fn reasons(error: &Error, service: &str) -> Vec<Reason> {
    let of_service = |d: &&Diagnosis| d.service == service;
    error.diagnoses().iter().filter(of_service).map(|d| d.reason.clone()).collect()
}

fn beside(t: &Test, web: ServiceBuilder, version: &str) -> App {
    t.build().service(web).service(t.service("other", version)).validate().unwrap()
}

pub(super) async fn a_crash_loop_is_named_and_the_whole_app_goes_back(t: &Test) {
    let web = |version| t.service("web", version).replicas(2).update(rolling());
    t.up(beside(t, web("1"), "1")).await.unwrap();
    let kept = t.ids("web").await;
    let load = t.load("web").await;
    let crashing = web("2")
        .env(dial::START_DELAY_MS, "60000")
        .env(dial::EXIT_AFTER_MS, "50")
        .env(dial::EXIT_CODE, "7")
        .env(dial::PRINT, "no database today");
    let error = t.up(beside(t, crashing, "2")).await.unwrap_err();
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");

    assert_eq!(error.kind(), ErrorKind::Failed);
    let reasons = reasons(&error, "web");
    let Some(Reason::CrashLoop { exit, log, .. }) = reasons.first() else { panic!("{error}") };
    assert_eq!(exit, "exit code 7");
    assert!(log.iter().any(|line| line == "no database today"), "{log:?}");

    assert_eq!(t.version("web").await, "1");
    assert_eq!(t.version("other").await, "1", "the whole app goes back");
    assert!(t.ids("web").await.iter().any(|id| kept.contains(id)), "who could stay has stayed");
    let history = t.history().await;
    let numbers: Vec<u64> = history.iter().map(|r| r.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
    let Outcome::Failed { diagnoses, .. } = &history[1].outcome else { panic!("{history:#?}") };
    assert_eq!(diagnoses, error.diagnoses(), "kept with the revision");
    assert_eq!(history[2].outcome, Outcome::Succeeded);
    assert_eq!(history[2].app, history[0].app);
    let plan = t.plan(beside(t, web("1"), "1")).await.unwrap();
    assert!(plan.is_empty(), "{plan}");
}

pub(super) async fn a_failing_probe_is_named_and_no_request_is_lost(t: &Test) {
    let web = |version| t.service("web", version).replicas(2).update(rolling());
    t.up(t.only(web("1"))).await.unwrap();
    let load = t.load("web").await;
    let ill = web("2").env(dial::UNHEALTHY_AFTER_MS, "0");
    let error = t.up(t.only(ill)).await.unwrap_err();
    let outcome = load.stop().await;
    assert_eq!(outcome.failed, 0, "{outcome:#?}");
    assert_eq!(outcome.versions.keys().collect::<Vec<_>>(), ["1"], "the ill one takes none");
    let reasons = reasons(&error, "web");
    let Some(Reason::ProbeFailing { probe, answer, .. }) = reasons.first() else {
        panic!("{error}")
    };
    assert_eq!(probe, "readiness");
    assert!(answer.contains("503"), "{answer}");
    assert_eq!(t.version("web").await, "1");
}

pub(super) async fn one_that_is_too_slow_is_named(t: &Test) {
    let web = |version| t.service("web", version).update(rolling());
    t.up(t.only(web("1"))).await.unwrap();
    let slow = web("2").env(dial::START_DELAY_MS, "3600000");
    let error = t.up(t.only(slow)).await.unwrap_err();
    let reasons = reasons(&error, "web");
    let named = |r: &Reason| matches!(r, Reason::Slow { .. } | Reason::ProbeFailing { .. });
    assert!(!reasons.is_empty() && reasons.iter().all(named), "{error}");
    assert_eq!(t.version("web").await, "1");
}

pub(super) async fn one_that_does_not_stay_ready_is_refused(t: &Test) {
    let web = |version| {
        // Time for the start, too, which takes seconds where an engine is busy.
        let deadline = Duration::from_secs(12);
        let update = rolling().monitor(Duration::from_secs(3)).progress_deadline(deadline);
        t.service("web", version).update(update)
    };
    t.up(t.only(web("1"))).await.unwrap();
    let load = t.load("web").await;
    let fading = web("2").env(dial::UNHEALTHY_AFTER_MS, "1000");
    let error = t.up(t.only(fading)).await.unwrap_err();
    assert!(!reasons(&error, "web").is_empty(), "{error}");
    let outcome = load.stop().await;
    assert_eq!(
        outcome.failed, 0,
        "the old one stays until the new one has proven itself: {outcome:#?}"
    );
    assert_eq!(t.version("web").await, "1");
}

pub(super) async fn a_failed_first_deploy_is_left_and_mended_by_the_next(t: &Test) {
    let ill = t.service("web", "1").update(rolling()).env(dial::UNHEALTHY_AFTER_MS, "0");
    let error = t.up(t.only(ill)).await.unwrap_err();
    assert!(!reasons(&error, "web").is_empty(), "{error}");
    assert_eq!(t.ids("web").await.len(), 1, "there is nothing to go back to: {error}");
    let deadline = Duration::from_secs(60);
    let well = t.service("web", "2").update(rolling().progress_deadline(deadline));
    t.up(t.only(well)).await.unwrap();
    assert_eq!((t.version("web").await.as_str(), t.ids("web").await.len()), ("2", 1));
    assert_eq!(t.history().await.len(), 2);
}

pub(super) async fn pause_leaves_everything_as_it_is(t: &Test) {
    let web = |version| {
        t.service("web", version).replicas(2).update(rolling().on_failure(OnFailure::Pause))
    };
    t.up(t.only(web("1"))).await.unwrap();
    let old = t.ids("web").await;
    t.up(t.only(web("2").env(dial::UNHEALTHY_AFTER_MS, "0"))).await.unwrap_err();
    let left = t.ids("web").await;
    assert!(left.iter().any(|id| !old.contains(id)), "the new one is left to be looked at");
    assert_eq!(t.history().await.len(), 2, "nothing was rolled back");
    assert_eq!(t.version("web").await, "1");
    t.up(t.only(web("3"))).await.unwrap();
    assert_eq!((t.version("web").await.as_str(), t.ids("web").await.len()), ("3", 2));
}

pub(super) async fn continue_carries_out_the_rest(t: &Test) {
    let web = |version| t.service("web", version).update(rolling().on_failure(OnFailure::Continue));
    let app = |web: ServiceBuilder, version| {
        let slow = t.service("other", version).env(dial::START_DELAY_MS, "800");
        t.build().service(web).service(slow).validate().unwrap()
    };
    t.up(app(web("1"), "1")).await.unwrap();
    let ill = web("2").env(dial::UNHEALTHY_AFTER_MS, "0");
    let error = t.up(app(ill, "2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert_eq!(t.version("other").await, "2", "{error}");
    assert_eq!(t.version("web").await, "1", "the old one goes on: {error}");
}
