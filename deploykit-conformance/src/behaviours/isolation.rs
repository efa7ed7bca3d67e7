//! Isolated apps.

use deploykit_core::model::{App, Condition};

use crate::test::Test;

/// `front` may reach `back`; `stranger` knows where it is and may not.
fn app(t: &Test, version: &str) -> App {
    let front = t.service("front", version).connects_to("back");
    let stranger = t.service("stranger", "1").depends_on("back", Condition::Healthy);
    let build = t.build().isolated().service(front).service(stranger);
    build.service(t.service("back", "7").replicas(2)).validate().unwrap()
}

async fn holds(t: &Test) {
    let said = t.get("front", "/peer?name=back").await;
    assert!(said.contains(r#""version":"7""#), "{said}");
    let refused = t.send("stranger", "GET", "/peer?name=back", "").await;
    assert_eq!(refused.status, 502, "{}", refused.body);
}

pub(super) async fn only_those_that_are_named_get_through(t: &Test) {
    t.up(app(t, "1")).await.unwrap();
    holds(t).await;
    assert!(t.plan(app(t, "1")).await.unwrap().is_empty(), "applying it twice is no drift");
    t.up(app(t, "2")).await.unwrap();
    assert_eq!(t.version("front").await, "2");
    holds(t).await;
}
