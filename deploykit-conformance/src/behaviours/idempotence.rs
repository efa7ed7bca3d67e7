//! What has not changed is not touched.

use deploykit_core::Goal;
use deploykit_core::model::App;

use crate::test::Test;

pub(super) async fn a_second_apply_changes_nothing(t: &Test) {
    let app = || {
        let back = t.service("back", "1").volume("data");
        let front = t.service("front", "1").replicas(2).connects_to("back").config("title");
        let job = t.job("setup");
        let build = t.build().service(back).service(front).job(job);
        build.volume("data", Default::default()).config("title", "hello").validate().unwrap()
    };
    t.up(app()).await.unwrap();
    let (before, calls) = (t.seen().await, t.calls());
    let plan = t.plan(app()).await.unwrap();
    assert!(plan.is_empty(), "{plan}");
    let done = t.up(app()).await.unwrap();
    assert_eq!((done.revision, done.steps), (Some(1), 0));
    assert_eq!(t.calls(), calls, "mutating calls of a second apply");
    assert_eq!(t.seen().await, before);
}

fn many(t: &Test, changed: usize, version: &str) -> App {
    let mut app = t.build();
    for n in 0..8 {
        let version = if n == changed { version } else { "1" };
        app = app.service(t.service(&format!("s{n}"), version));
    }
    app.validate().unwrap()
}

pub(super) async fn a_change_of_one_touches_that_one(t: &Test) {
    t.up(many(t, 0, "1")).await.unwrap();
    let before = t.seen().await;
    let plan = t.plan(many(t, 5, "2")).await.unwrap();
    let goals: Vec<&Goal> = plan.steps().iter().map(|s| &s.goal).collect();
    let five = Goal::Service(crate::test::name("s5"));
    assert!(goals == [&five, &Goal::Collect] || goals == [&five], "{plan}");
    let cause = plan.steps()[0].causes.join(", ");
    assert!(cause.contains("TESTAPP_VERSION"), "the plan names what differs: {plan}");
    t.up(many(t, 5, "2")).await.unwrap();
    for instance in t.seen().await.instances {
        let kept = before.instance(&instance.id).is_some();
        assert_eq!(kept, instance.service != "s5", "{instance:#?}");
    }
    assert_eq!((t.version("s5").await, t.version("s4").await), ("2".into(), "1".into()));
}

pub(super) async fn services_come_and_go_by_themselves(t: &Test) {
    let app = |names: &[&str]| {
        let add =
            |app: deploykit_core::model::AppBuilder, name: &&str| app.service(t.service(name, "1"));
        names.iter().fold(t.build(), add).validate().unwrap()
    };
    t.up(app(&["one", "two"])).await.unwrap();
    let two = t.ids("two").await;
    t.up(app(&["two", "three"])).await.unwrap();
    assert_eq!(t.ids("two").await, two);
    assert!(t.ids("one").await.is_empty());
    assert!(!t.seen().await.endpoints.contains_key("one"));
    assert_eq!(t.version("three").await, "1");
}
