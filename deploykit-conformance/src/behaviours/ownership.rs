//! What belongs to others.

use deploykit_core::Reason;
use deploykit_core::model::{AppName, Port, Publish};

use crate::kit::remove;
use crate::test::Test;

/// A test of another app on the same backend.
async fn neighbour(t: &Test) -> Test {
    let app = AppName::new(format!("{}-b", t.name())).unwrap();
    Test::connect(t.settings.clone(), t.bed.another(), app).await.unwrap()
}

pub(super) async fn apps_do_not_touch_each_other(t: &Test) {
    let other = neighbour(t).await;
    t.up(t.web("1", 2)).await.unwrap();
    other.up(other.web("2", 1)).await.unwrap();
    let theirs = other.seen().await;
    assert_eq!((t.version("web").await, other.version("web").await), ("1".into(), "2".into()));
    t.up(t.web("3", 1)).await.unwrap();
    remove(t).await.unwrap();
    assert_eq!(other.seen().await, theirs);
    assert_eq!(other.version("web").await, "2");
    remove(&other).await.unwrap();
}

pub(super) async fn a_taken_port_is_named_and_left_alone(t: &Test) {
    let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let app = |t: &Test, port| {
        let web = t.service("web", "1");
        t.only(
            web.port(
                Port::tcp(9000)
                    .publish(Publish::HostPort(port))
                    .named(deploykit_core::model::PortName::new("tcp").unwrap()),
            ),
        )
    };
    let other = neighbour(t).await;
    t.up(app(t, port)).await.unwrap();
    let ours = t.seen().await;
    let public = ours.endpoints["web"].ports[1].public.as_ref().map(|a| a.port);
    assert_eq!(public, Some(port));
    let refused = other.up(app(&other, port)).await.unwrap_err();
    let named = |reason: &Reason| matches!(reason, Reason::PortTaken { port: p, .. } if *p == port);
    assert!(refused.diagnoses().iter().any(|d| named(&d.reason)), "{refused}");
    assert_eq!(t.seen().await, ours);
    assert_eq!(t.version("web").await, "1");
    remove(&other).await.unwrap();
}
