//! What a real API server does not do on demand: a scripted one does. Time is tokio's paused one.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{Error, ErrorKind, Expected, Fence, Lease, StateStore};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use http_body_util::StreamBody;
use hyper::body::{Bytes, Frame};
use hyper::{Method, Request, Response};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::Client;
use kube::client::Body;
use kube::core::ApiResource;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::objects::Manifest;
use crate::state::State;
use crate::view::{View, Views};

/// What the server does with a request.
enum Answer {
    Json(u16, Value),
    Text(u16, &'static str),
    /// It takes the request, and says nothing more.
    Silence,
    /// These events of a watch, then silence.
    Watch(Vec<Value>),
    /// These events of a watch, and the connection is lost in the middle of one.
    Cut(Vec<Value>),
}

/// A request, and how many of its kind there were before.
struct Asked {
    method: Method,
    path: String,
    is_watch: bool,
    before: usize,
}

impl Asked {
    fn is(&self, method: Method, resource: &str) -> bool {
        let at = self.path.split('/').any(|part| part == resource);
        at && self.method == method
    }
}

struct Wire {
    cluster: Cluster,
    /// Method, path and query of each request.
    asked: Arc<Mutex<Vec<(Method, String, String)>>>,
}

type Frames = BoxStream<'static, io::Result<Frame<Bytes>>>;

fn body(code: u16, frames: Frames) -> Response<StreamBody<Frames>> {
    let date = "Sun, 29 Nov 2026 12:00:00 GMT";
    let answer = Response::builder().status(code).header("date", date);
    answer.body(StreamBody::new(frames)).unwrap()
}

fn whole(code: u16, text: String) -> Response<StreamBody<Frames>> {
    body(code, stream::iter([Ok(Frame::data(text.into()))]).boxed())
}

/// A cluster whose API server answers by `script`, and holds the lock of the app `shop` for the
/// fence of [`fence`].
fn wire(script: impl Fn(&Asked) -> Option<Answer> + Send + Sync + 'static) -> Wire {
    let asked: Arc<Mutex<Vec<(Method, String, String)>>> = Arc::default();
    let (log, script) = (Arc::clone(&asked), Arc::new(script));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let (path, query) = (uri.path().to_owned(), uri.query().unwrap_or_default().to_owned());
        let is_watch = query.contains("watch=true");
        let mut log = log.lock().unwrap();
        let alike = |(m, p, q): &&(Method, String, String)| {
            (m, p) == (&method, &path) && q.contains("watch=true") == is_watch
        };
        let before = log.iter().filter(alike).count();
        log.push((method.clone(), path.clone(), query));
        let asked = Asked { method, path, is_watch, before };
        let answer = script(&asked).or_else(|| quiet(&asked));
        let answer = answer.unwrap_or_else(|| panic!("{} {}?", asked.method, asked.path));
        async move { Ok::<_, Infallible>(send(answer).await) }.boxed()
    });
    let client = Client::new(service, "test");
    Wire { cluster: Cluster::new((client.clone(), client), "test".into(), false), asked }
}

async fn send(answer: Answer) -> Response<StreamBody<Frames>> {
    let lines = |events: Vec<Value>| {
        stream::iter(events).map(|event| Ok(Frame::data(format!("{event}\n").into())))
    };
    match answer {
        Answer::Json(code, value) => whole(code, value.to_string()),
        Answer::Text(code, text) => whole(code, text.to_owned()),
        Answer::Silence => std::future::pending().await,
        Answer::Watch(events) => body(200, lines(events).chain(stream::pending()).boxed()),
        Answer::Cut(events) => {
            let lost = io::Error::new(io::ErrorKind::ConnectionReset, "the connection is lost");
            let half = stream::iter([Ok(Frame::data("{\"type\":\"ADD".into())), Err(lost)]);
            body(200, lines(events).chain(half).boxed())
        }
    }
}

/// What is answered to what a test has no interest in: the lock is held, and nothing is there.
fn quiet(asked: &Asked) -> Option<Answer> {
    if asked.method != Method::GET {
        return None;
    }
    if asked.path.ends_with("/leases/deploykit.shop") {
        return Some(Answer::Json(200, lock()));
    }
    if asked.is_watch {
        return Some(Answer::Watch(Vec::new()));
    }
    Some(Answer::Json(200, list(1, &[])))
}

fn lock() -> Value {
    json!({
        "metadata": {
            "name": "deploykit.shop",
            "resourceVersion": "8",
            "annotations": { "deploykit.dev/epoch": "7" },
            "managedFields": [{ "time": "2026-11-29T11:59:59Z" }],
        },
        "spec": { "holderIdentity": "another", "leaseDurationSeconds": 30 },
    })
}

fn app() -> AppName {
    AppName::new("shop").unwrap()
}

fn fence() -> Fence {
    Fence { app: app(), epoch: 7 }
}

fn list(version: u32, items: &[Value]) -> Value {
    json!({ "metadata": { "resourceVersion": version.to_string() }, "items": items })
}

fn pod(name: &str, version: u32) -> Value {
    let labels = json!({ "deploykit.dev/app": "shop", "deploykit.dev/service": "web" });
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "resourceVersion": version.to_string(), "labels": labels },
    })
}

fn event(word: &str, object: Value) -> Value {
    json!({ "type": word, "object": object })
}

fn refusal(code: u16, reason: &str, message: &str) -> Answer {
    Answer::Json(code, status(code, reason, message))
}

/// A cluster whose API server lets no ConfigMap be applied.
fn refusing(code: u16, reason: &'static str, message: &'static str) -> Wire {
    wire(move |asked| asked.is(Method::PATCH, "configmaps").then(|| refusal(code, reason, message)))
}

fn status(code: u16, reason: &str, message: &str) -> Value {
    let known = json!({ "apiVersion": "v1", "kind": "Status", "status": "Failure" });
    let mut status = json!({ "code": code, "reason": reason, "message": message });
    for (key, value) in known.as_object().unwrap() {
        status[key] = value.clone();
    }
    status
}

impl Wire {
    fn count(&self, method: Method, resource: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        let this = |(m, path, _): &&(Method, String, String)| {
            *m == method && path.split('/').any(|part| part == resource)
        };
        asked.iter().filter(this).count()
    }

    /// The queries of the watches, or of the lists, of a kind.
    fn queries(&self, resource: &str, watches: bool) -> Vec<String> {
        let asked = self.asked.lock().unwrap();
        let of = asked.iter().filter(|(_, path, _)| path.ends_with(resource));
        let queries = of.map(|(_, _, query)| query.clone());
        queries.filter(|query| query.contains("watch=true") == watches).collect()
    }

    /// Writes an entry of the app's state, which must not be done twice.
    async fn put(&self) -> Result<u64, Error> {
        State(self.cluster.clone()).put(&fence(), "key", "value", Expected::Absent).await
    }

    /// Applies an object, which may be done twice.
    async fn apply(&self) -> Result<(), Error> {
        self.cluster.apply(&manifest("one"), None, false).await.map(drop)
    }

    fn view(&self) -> Arc<View> {
        Views::default().of(&self.cluster, &fence())
    }
}

fn manifest(name: &str) -> Manifest {
    Manifest {
        resource: ApiResource::erase::<ConfigMap>(&()),
        wide: false,
        name: name.into(),
        value: json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } }),
    }
}

/// Waits until the pods of the service are those.
async fn until_pods(view: &View, names: &[&str]) {
    let web = ServiceName::new("web").unwrap();
    let mut changes = view.changes(&web);
    loop {
        let pods = view.look(|live| live.pods.of(&web)).await.unwrap();
        let found: Vec<_> = pods.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        if found == names {
            return;
        }
        let change = tokio::time::timeout(Duration::from_secs(600), changes.changed()).await;
        change.unwrap_or_else(|_| panic!("{found:?} is not {names:?}")).unwrap();
    }
}

fn made() -> Option<Answer> {
    let metadata = json!({ "name": "one", "resourceVersion": "9" });
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
    Some(Answer::Json(201, object))
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_asked_again_when_it_says() {
    // Refused unread: even what must not be done twice is sent again.
    let wire = wire(|asked| match (asked.is(Method::POST, "configmaps"), asked.before) {
        (false, _) => None,
        (true, 0) => {
            let mut status = status(429, "TooManyRequests", "busy");
            status["details"] = json!({ "retryAfterSeconds": 3 });
            Some(Answer::Json(429, status))
        }
        (true, 1) => Some(Answer::Text(429, "Too many requests, please try again later.")),
        (true, _) => made(),
    });
    let begun = Instant::now();
    assert_eq!(wire.put().await.unwrap(), 9);
    assert_eq!(wire.count(Method::POST, "configmaps"), 3);
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_secs(4) && waited < Duration::from_secs(8), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_busy_is_given_up() {
    let busy = |asked: &Asked| match asked.is(Method::POST, "configmaps") {
        true => Some(refusal(429, "TooManyRequests", "the server is busy")),
        false => None,
    };
    let wire = wire(busy);
    let error = wire.put().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the server is busy"), "{error}");
    assert_eq!(wire.count(Method::POST, "configmaps"), 5);
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_done_twice_is_sent_once() {
    for script in [
        (|| refusal(500, "InternalError", "etcdserver: request timed out")) as fn() -> Answer,
        || Answer::Silence,
    ] {
        let wire = wire(move |asked| match asked.is(Method::POST, "configmaps") {
            true => Some(script()),
            false => None,
        });
        let error = wire.put().await.unwrap_err();
        assert!(error.is_retryable(), "{error}");
        assert_eq!(wire.count(Method::POST, "configmaps"), 1, "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_may_be_done_twice_is_sent_until_it_is_done() {
    let wire = wire(|asked| match (asked.is(Method::PATCH, "configmaps"), asked.before) {
        (false, _) => None,
        (true, 0) => Some(refusal(500, "InternalError", "etcdserver: leader changed")),
        (true, 1) => Some(Answer::Silence),
        (true, 2) => Some(Answer::Text(503, "upstream connect error")),
        (true, _) => made(),
    });
    wire.apply().await.unwrap();
    assert_eq!(wire.count(Method::PATCH, "configmaps"), 4);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_is_given_up() {
    let wire = wire(|asked| asked.is(Method::PATCH, "configmaps").then_some(Answer::Silence));
    let error = wire.apply().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("gave no answer within 30s"), "{error}");
    assert!(error.to_string().contains("apply the ConfigMap one"), "{error}");
    assert_eq!(wire.count(Method::PATCH, "configmaps"), 5);
}

#[tokio::test(start_paused = true)]
async fn fields_of_others_are_no_reason_to_try_again() {
    let message = "Apply failed with 1 conflict: conflict with \"kubectl\": .data.colour";
    let wire = refusing(409, "Conflict", message);
    let error = wire.apply().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("conflict with \"kubectl\": .data.colour"), "{error}");
    assert_eq!(wire.count(Method::PATCH, "configmaps"), 1);
}

#[tokio::test(start_paused = true)]
async fn an_admission_webhook_that_does_not_answer_is_named() {
    let message = "Internal error occurred: failed calling webhook \"check.example\": failed to \
                   call webhook: Post \"https://check.example/\": context deadline exceeded";
    let wire = refusing(500, "InternalError", message);
    let error = wire.apply().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("failed calling webhook \"check.example\""), "{error}");
    assert_eq!(wire.count(Method::PATCH, "configmaps"), 5);
}

#[tokio::test(start_paused = true)]
async fn an_admission_that_refuses_is_no_missing_right() {
    let message = "admission webhook \"check.example\" denied the request: not from there";
    let wire = refusing(403, "Forbidden", message);
    let error = wire.apply().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("denied the request: not from there"), "{error}");
    assert!(!error.to_string().contains("give the user the role"), "{error}");
    assert_eq!(wire.count(Method::PATCH, "configmaps"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_role_is_advised_that_gives_the_right() {
    for (group, kind, advice) in [
        ("apps", "deployments", "give the user the role `edit` in the namespace"),
        ("apiextensions.k8s.io", "customresourcedefinitions", "`edit` does not"),
    ] {
        let wire = wire(move |asked| {
            let mut status = status(403, "Forbidden", "the user cannot patch it");
            status["details"] = json!({ "group": group, "kind": kind });
            asked.is(Method::PATCH, "configmaps").then_some(Answer::Json(403, status))
        });
        let error = wire.apply().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorized);
        assert!(error.to_string().contains(advice), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_answer_about_the_lock_is_for_all_that_wait_for_it() {
    let wire = wire(|_| None);
    let mut steps = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let cluster = wire.cluster.clone();
        steps.spawn(async move { cluster.check(&fence()).await });
    }
    while let Some(checked) = steps.join_next().await {
        checked.unwrap().unwrap();
    }
    assert!(wire.count(Method::GET, "leases") < 10, "not one for each");
    let before = wire.count(Method::GET, "leases");
    wire.cluster.check(&fence()).await.unwrap();
    assert_eq!(wire.count(Method::GET, "leases"), before + 1, "what comes later is asked anew");
}

#[tokio::test(start_paused = true)]
async fn the_lock_is_read_again_from_a_server_that_stumbles() {
    let wire = wire(|asked| match (asked.is(Method::GET, "leases"), asked.before) {
        (true, 0) => Some(refusal(500, "InternalError", "etcdserver: leader changed")),
        (true, 1) => Some(Answer::Text(429, "Too many requests, please try again later.")),
        _ => None,
    });
    wire.cluster.check(&fence()).await.unwrap();
    assert_eq!(wire.count(Method::GET, "leases"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_another_was_first_to_take_is_not_taken() {
    // There is none when it is looked for.
    let wire = wire(|asked| match asked.method {
        Method::POST => Some(refusal(409, "AlreadyExists", "the lease exists already")),
        _ => None,
    });
    let ttl = Duration::from_secs(30);
    let error = wire.cluster.acquire(&app(), "this one", ttl).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("another is at work on the app"), "{error}");
    assert_eq!(wire.count(Method::POST, "leases"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_cut_goes_on_where_it_was() {
    let wire = wire(|asked| match (asked.is(Method::GET, "pods"), asked.is_watch, asked.before) {
        (true, false, _) => Some(Answer::Json(200, list(10, &[pod("a", 9)]))),
        (true, true, 0) => Some(Answer::Cut(vec![event("ADDED", pod("b", 11))])),
        (true, true, 1) => Some(refusal(500, "InternalError", "etcdserver: leader changed")),
        (true, true, _) => Some(Answer::Watch(vec![event("ADDED", pod("c", 12))])),
        _ => None,
    });
    let view = wire.view();
    until_pods(&view, &["a", "b", "c"]).await;
    assert_eq!(wire.queries("/pods", false).len(), 1, "nothing is listed anew");
    let watches = wire.queries("/pods", true);
    assert!(watches[0].contains("resourceVersion=10"), "{watches:?}");
    assert!(watches[1].contains("resourceVersion=11"), "{watches:?}");
    assert!(watches.len() == 3 && watches[2].contains("resourceVersion=11"), "{watches:?}");
}

#[tokio::test(start_paused = true)]
async fn a_watch_whose_history_is_gone_lists_anew() {
    let wire = wire(|asked| match (asked.is(Method::GET, "pods"), asked.is_watch, asked.before) {
        (true, false, 0) => Some(Answer::Json(200, list(10, &[pod("a", 9)]))),
        // What has gone meanwhile is told by nobody.
        (true, false, _) => Some(Answer::Json(200, list(90, &[pod("b", 80)]))),
        (true, true, 0) => {
            let gone = status(410, "Expired", "too old resource version: 10 (50)");
            Some(Answer::Watch(vec![event("ERROR", gone)]))
        }
        (true, true, _) => Some(Answer::Watch(vec![event("ADDED", pod("c", 91))])),
        _ => None,
    });
    let view = wire.view();
    until_pods(&view, &["b", "c"]).await;
    assert_eq!(wire.queries("/pods", false).len(), 2);
    let watches = wire.queries("/pods", true);
    assert!(watches.len() == 2 && watches[1].contains("resourceVersion=90"), "{watches:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_cannot_be_watched_is_given_up_with_the_reason() {
    let wire = wire(|asked| match asked.is(Method::GET, "pods") {
        true => Some(refusal(500, "InternalError", "the storage is gone")),
        false => None,
    });
    let view = wire.view();
    let error = view.look(|_| ()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the app cannot be watched"), "{error}");
    assert!(error.to_string().contains("the storage is gone"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_lock_is_renewed_before_what_waits_for_its_turn() {
    let wire = wire(|asked| match asked.method {
        Method::GET if asked.is(Method::GET, "pods") => Some(Answer::Silence),
        Method::PUT => Some(Answer::Json(200, lock())),
        _ => None,
    });
    let mut steps = tokio::task::JoinSet::new();
    for _ in 0..200 {
        let cluster = wire.cluster.clone();
        steps.spawn(async move { cluster.list::<Pod>("look", "app").await.map(drop) });
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lease = Lease { fence: fence(), holder: "another".into() };
    let state = State(wire.cluster.clone());
    let renewed = state.renew(&lease, Duration::from_secs(30));
    tokio::time::timeout(Duration::from_secs(1), renewed).await.unwrap().unwrap();
    assert_eq!(wire.count(Method::PUT, "leases"), 1);
    assert!(wire.count(Method::GET, "pods") < 100, "not all at once");
}

#[tokio::test(start_paused = true)]
async fn what_is_new_is_told_by_one_list_for_a_moment() {
    let one = json!({ "metadata": { "name": "one", "resourceVersion": "3" } });
    let wire = wire(move |asked| {
        let listed = asked.is(Method::GET, "configmaps");
        listed.then(|| Answer::Json(200, list(4, std::slice::from_ref(&one))))
    });
    let view = wire.view();
    let (a, b, c) = (manifest("a"), manifest("b"), manifest("one"));
    let (a, b, c) = tokio::join!(view.is_absent(&a), view.is_absent(&b), view.is_absent(&c));
    assert_eq!((a, b, c), (true, true, false));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!view.is_absent(&manifest("a")).await, "somebody may have made it meanwhile");
    assert_eq!(wire.count(Method::GET, "configmaps"), 1);
    let queries = wire.queries("/configmaps", false);
    assert!(!queries[0].contains("labelSelector"), "whoever's they are: {queries:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_to_be_new_is_looked_for() {
    let many: Vec<Value> =
        (0..500).map(|n| json!({ "metadata": { "name": n.to_string() } })).collect();
    let wire = wire(move |asked| {
        match (asked.is(Method::GET, "configmaps"), asked.is(Method::GET, "services")) {
            (true, _) => Some(Answer::Json(200, list(4, &many))),
            (_, true) => Some(refusal(403, "Forbidden", "no lists")),
            _ => None,
        }
    });
    let view = wire.view();
    assert!(!view.is_absent(&manifest("a")).await, "there are more than were listed");
    let mut service = manifest("a");
    service.resource = ApiResource::erase::<k8s_openapi::api::core::v1::Service>(&());
    assert!(!view.is_absent(&service).await, "it cannot be listed");
}
