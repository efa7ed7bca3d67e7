//! The order of an apply.

use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::{Condition, Update};
use deploykit_core::{Event, Goal, Reason};

use crate::test::Test;

/// Where in the events a step of a service or job begins and ends.
fn span(events: &[Event], name: &str) -> (usize, usize) {
    let of = |goal: &Goal| match goal {
        Goal::Service(n) | Goal::Job { job: n, .. } => *n == name,
        _ => false,
    };
    let begins = |e: &Event| matches!(e, Event::StepStarted { goal, .. } if of(goal));
    let ends = |e: &Event| matches!(e, Event::StepFinished { goal, .. } if of(goal));
    (events.iter().position(begins).unwrap(), events.iter().position(ends).unwrap())
}

pub(super) async fn healthy_waits_until_it_is_ready(t: &Test) {
    let slow = |name| t.service(name, "1").env(dial::START_DELAY_MS, "300");
    let app = t
        .build()
        .service(slow("c").depends_on("b", Condition::Healthy))
        .service(slow("b").depends_on("a", Condition::Healthy))
        .service(slow("a"));
    let (done, events) = t.up_told(app.validate().unwrap()).await;
    done.unwrap();
    assert!(span(&events, "a").1 < span(&events, "b").0, "{events:#?}");
    assert!(span(&events, "b").1 < span(&events, "c").0, "{events:#?}");
}

pub(super) async fn started_does_not_wait_until_it_is_ready(t: &Test) {
    let a = t.service("a", "1").env(dial::START_DELAY_MS, "1500");
    let b = t.service("b", "1").depends_on("a", Condition::Started);
    let (done, events) = t.up_told(t.build().service(a).service(b).validate().unwrap()).await;
    done.unwrap();
    let (a, b) = (span(&events, "a"), span(&events, "b"));
    assert!(a.0 < b.0 && b.0 < a.1, "{events:#?}");
    let started = |e: &Event| matches!(e, Event::Started { service } if *service == "a");
    assert!(events.iter().position(started).unwrap() < b.0, "{events:#?}");
}

pub(super) async fn completed_waits_for_the_end_of_a_job(t: &Test) {
    let job = t.job("setup").env(dial::EXIT_AFTER_MS, "600");
    let web = t.service("web", "1").depends_on("setup", Condition::Completed);
    let (done, events) = t.up_told(t.build().job(job).service(web).validate().unwrap()).await;
    done.unwrap();
    assert!(span(&events, "setup").1 < span(&events, "web").0, "{events:#?}");
}

pub(super) async fn what_waits_for_a_failure_is_not_started(t: &Test) {
    let update = Update::rolling().progress_deadline(Duration::from_secs(3));
    let a = t.service("a", "1").env(dial::UNHEALTHY_AFTER_MS, "0").update(update);
    let b = t.service("b", "1").depends_on("a", Condition::Healthy);
    let app = t.build().service(a).service(b).validate().unwrap();
    let error = t.up(app).await.unwrap_err();
    let of_b = error.diagnoses().iter().find(|d| d.service == "b");
    let Some(Reason::DependencyBlocked { on, .. }) = of_b.map(|d| &d.reason) else {
        panic!("{error}")
    };
    assert_eq!(*on, "a");
    assert!(t.ids("b").await.is_empty());
}
