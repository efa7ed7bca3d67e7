//! Jobs.

use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::{App, JobBuilder};
use deploykit_core::{Change, Error, Reason};

use crate::test::{Test, name};

/// An app with a job that notes its runs on a volume, and a service that can read them.
fn app(t: &Test, job: JobBuilder, version: &str) -> App {
    let job = job.volume("data").env(dial::RUNS, "data");
    let web = t.service("web", version).volume("data");
    t.build().volume("data", Default::default()).job(job).service(web).validate().unwrap()
}

/// The instances that have run the job, in their order.
async fn runs(t: &Test) -> Vec<String> {
    let answer = t.file("web", "VOLUMES_DIR", "data/runs").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.lines().map(str::to_owned).collect()
}

/// Longer than a schedule of once a minute takes to come.
const SCHEDULED: Duration = Duration::from_secs(180);

pub(super) async fn a_scheduled_job_runs_by_itself(t: &Test) {
    let scheduled = |when: &str| app(t, t.job("setup").schedule(when), "1");
    t.up(scheduled("* * * * *")).await.unwrap();
    let first = tokio::time::timeout(SCHEDULED, async {
        while t.file("web", "VOLUMES_DIR", "data/runs").await.status != 200 {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    first.await.expect("it runs at its time");
    let plan = t.plan(scheduled("* * * * *")).await.unwrap();
    assert!(plan.is_empty(), "what has run by itself is no change: {plan}");
    let plan = t.plan(scheduled("0 3 * * *")).await.unwrap();
    assert!(plan.to_string().contains("schedule * * * * * -> 0 3 * * *"), "{plan}");
    t.up(scheduled("0 3 * * *")).await.unwrap();
    t.up(app(t, t.job("setup"), "1")).await.unwrap();
    assert!(t.seen().await.schedules.is_empty(), "it runs at no time any more");
    let plan = t.plan(app(t, t.job("setup"), "1")).await.unwrap();
    assert!(plan.is_empty(), "{plan}");
}

fn reason(error: &Error) -> &Reason {
    let diagnosis = error.diagnoses().iter().find(|d| d.service == "setup");
    &diagnosis.unwrap_or_else(|| panic!("no diagnosis of the job: {error}")).reason
}

pub(super) async fn a_job_runs_once_for_each_content(t: &Test) {
    let job = |content| t.job("setup").env("CONTENT", content);
    t.up(app(t, job("1"), "1")).await.unwrap();
    assert_eq!(runs(t).await.len(), 1);
    t.up(app(t, job("1"), "2")).await.unwrap();
    assert_eq!(runs(t).await.len(), 1, "a job that has not changed does not run again");
    t.up(app(t, job("2"), "2")).await.unwrap();
    assert_eq!(runs(t).await.len(), 2, "one that has changed does");
    let plan = t.plan(app(t, job("2"), "2")).await.unwrap();
    assert!(plan.is_empty(), "one-shot jobs do not break waiting: {plan}");
    let app = t.name().clone();
    t.change(Change::RunJob { app: app.clone(), job: name("setup") }).await.unwrap();
    assert_eq!(runs(t).await.len(), 3, "one that is asked for does");
    t.change(Change::Rollback { app, to: Some(1) }).await.unwrap();
    assert_eq!(t.version("web").await, "1");
    assert_eq!(runs(t).await.len(), 3, "a rollback runs none");
}

pub(super) async fn a_job_is_tried_again_as_often_as_it_says(t: &Test) {
    t.up(app(t, t.job("setup").env(dial::FAIL_RUNS, "2").retries(2), "1")).await.unwrap();
    let runs = runs(t).await;
    assert_eq!(runs.len(), 3);
    assert!(runs[0] != runs[1] && runs[1] != runs[2], "each by an instance of its own: {runs:?}");
}

pub(super) async fn a_failed_job_is_named(t: &Test) {
    let failing = t.job("setup").env(dial::EXIT_CODE, "3").env(dial::PRINT, "table is there");
    let error = t.up(app(t, failing.retries(1), "1")).await.unwrap_err();
    let Reason::JobFailed { exit, log } = reason(&error) else { panic!("{error}") };
    assert_eq!(exit, "exit code 3");
    assert!(log.iter().any(|line| line == "table is there"), "{log:?}");
    t.up(app(t, t.job("setup"), "1")).await.unwrap();
    assert_eq!(runs(t).await.len(), 3, "two attempts that failed, and one");
}

pub(super) async fn a_job_that_takes_too_long_is_ended(t: &Test) {
    let slow = t.job("setup").env(dial::EXIT_AFTER_MS, "3600000").timeout(Duration::from_secs(1));
    let error = t.up(app(t, slow, "1")).await.unwrap_err();
    assert!(matches!(reason(&error), Reason::Slow { .. }), "{error}");
    assert!(t.ids("setup").await.is_empty(), "it runs no more");
}
