//! Deploying, and what "ready" means.

use deploykit_core::memory::dial;
use deploykit_core::model::{App, ImageRef, ImageSpec, Port, Service};
use deploykit_core::{ErrorKind, Event, Feature, InstanceState, Outcome};

use crate::test::Test;
use crate::testapp::WORD;

pub(super) async fn ready_means_ready(t: &Test) {
    let web = t.service("web", "1").replicas(3).env(dial::START_DELAY_MS, "400");
    let (done, events) = t.up_told(t.only(web)).await;
    assert_eq!(done.unwrap().revision, Some(1));
    let seen = t.seen().await;
    let instances = t.instances("web").await;
    assert_eq!(instances.len(), 3, "{instances:#?}");
    for instance in instances.values() {
        assert!(instance.ready && instance.state == InstanceState::Running, "{instance:#?}");
        assert_eq!((instance.revision, instance.restarts), (1, 0));
    }
    let routed: Vec<_> = seen.endpoints["web"].routed.iter().cloned().collect();
    assert_eq!(routed, t.ids("web").await);
    assert_eq!(t.version("web").await, "1");

    let status = t.deployer().status(t.name()).await.unwrap();
    assert_eq!(status.revision.unwrap().outcome, Outcome::Succeeded);
    assert!(t.deployer().apps().await.unwrap().contains(t.name()));

    assert!(matches!(events.first(), Some(Event::RevisionStarted { revision: 1, .. })));
    let Some(Event::RevisionFinished { revision: 1, outcome }) = events.last() else {
        panic!("{events:#?}")
    };
    assert_eq!(outcome, "succeeded");
    let all_ready = |e: &Event| matches!(e, Event::Progress { ready: 3, wanted: 3, .. });
    assert!(events.iter().any(all_ready), "{events:#?}");
}

pub(super) async fn a_service_without_ports_is_ready_when_it_runs(t: &Test) {
    let worker = Service::build("worker", t.image().clone()).arg(WORD).replicas(2);
    t.up(t.only(worker)).await.unwrap();
    let instances = t.instances("worker").await;
    assert_eq!(instances.values().filter(|i| i.ready).count(), 2, "{instances:#?}");
    assert!(t.seen().await.endpoints.is_empty());
}

pub(super) async fn a_missing_image_is_refused_beforehand(t: &Test) {
    let image = match t.backend().capabilities().has(Feature::Executables) {
        true => ImageSpec::binary("/nonexistent/testapp"),
        false => ImageSpec::Reference(ImageRef::new("registry.invalid/none/testapp:1").unwrap()),
    };
    let app = t.only(Service::build("web", image));
    let refused = t.deployer().prepare(app).await.unwrap_err();
    let paths: Vec<&str> = refused.problems().iter().map(|p| p.path.as_str()).collect();
    assert_eq!(paths, ["services.web.image"], "{refused}");
    assert_eq!(t.calls(), 0);
}

pub(super) async fn an_invalid_app_is_refused_with_every_problem(t: &Test) {
    let mut app: App = t.web("1", 1);
    let mut other = app.services["web"].clone();
    other.ports = vec![Port::http(8080), Port::http(8080)];
    other.depends_on.insert(crate::test::name("nobody"), Default::default());
    app.services.insert(crate::test::name("other"), other);
    let refused = t.deployer().prepare(app).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
    assert!(refused.problems().len() >= 2, "{refused}");
    assert!(refused.problems().iter().all(|p| p.path.starts_with("services.other")), "{refused}");
    assert_eq!(t.calls(), 0);
}
