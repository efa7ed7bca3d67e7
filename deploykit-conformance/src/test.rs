//! What a behaviour is tested with.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "what does not hold panics, and the harness reports it"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use deploykit_core::model::*;
use deploykit_core::{
    Applied, Change, Deployer, Event, Instance, Observation, Orchestrator, Plan, Result, Revision,
    Silent,
};
use tokio::time::{Instant, sleep};

use crate::apps;
use crate::bed::Bed;
use crate::client::{Answer, Client};
use crate::counting::{Calls, Counting};
use crate::kit::Settings;
use crate::load::{Facts, Load};

/// The longest that anything is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the backend under test, an app's name of its own, and what tests ask for again
/// and again. What does not hold panics, as in any test.
pub struct Test {
    pub(crate) settings: Arc<Settings>,
    pub(crate) bed: Bed,
    calls: Calls,
    deployer: Deployer,
    pub(crate) app: AppName,
    client: Box<dyn Client>,
}

impl Test {
    pub(crate) async fn connect(settings: Arc<Settings>, bed: Bed, app: AppName) -> Result<Self> {
        let backend = (settings.connect)(bed.clone()).await?;
        let calls = Calls::default();
        let counting = Counting::new(backend, calls.clone(), bed.faults().clone());
        let client = bed.client();
        Ok(Self { settings, bed, calls, deployer: Deployer::new(Arc::new(counting)), app, client })
    }

    /// Another connection to the same backend, as another deployer would make it.
    pub async fn another(&self) -> Self {
        let connected = Self::connect(self.settings.clone(), self.bed.another(), self.app.clone());
        connected.await.expect("a second connection")
    }

    /// The deployer.
    pub fn deployer(&self) -> &Deployer {
        &self.deployer
    }

    /// The backend.
    pub fn backend(&self) -> &dyn Orchestrator {
        self.deployer.backend().as_ref()
    }

    /// The name of the test's app.
    pub fn name(&self) -> &AppName {
        &self.app
    }

    /// How many mutating calls this connection has made.
    pub fn calls(&self) -> u64 {
        self.calls.count()
    }

    /// The image of the test application.
    pub fn image(&self) -> &ImageSpec {
        &self.settings.image
    }

    /// A command of the test application's, to be run beside an instance.
    pub fn command(&self, words: &[&str]) -> Vec<String> {
        let own = [self.settings.program.as_str(), crate::testapp::WORD, "exec"];
        own.iter().chain(words).map(|word| (*word).to_owned()).collect()
    }

    /// An app of the test's name, to which services are added.
    pub fn build(&self) -> AppBuilder {
        App::build(self.app.as_str())
    }

    /// A service of the [usual kind](apps::service).
    pub fn service(&self, name: &str, version: &str) -> ServiceBuilder {
        apps::service(name, self.image(), version)
    }

    /// A job of the [usual kind](apps::job).
    pub fn job(&self, name: &str) -> JobBuilder {
        apps::job(name, self.image())
    }

    /// An app with one service `web`.
    pub fn web(&self, version: &str, replicas: u32) -> App {
        self.only(self.service("web", version).replicas(replicas))
    }

    /// An app with one service.
    pub fn only(&self, service: ServiceBuilder) -> App {
        self.build().service(service).validate().expect("the app of a test is valid")
    }

    /// The plan of a deploy.
    pub async fn plan(&self, app: App) -> Result<Plan> {
        let ready = self.deployer.prepare(app).await?;
        self.deployer.plan(Change::Deploy(Box::new(ready))).await
    }

    /// Deploys.
    pub async fn up(&self, app: App) -> Result<Applied> {
        let plan = self.plan(app).await?;
        self.deployer.apply(plan, &mut Silent).await
    }

    /// Deploys, and takes down what is reported.
    pub async fn up_told(&self, app: App) -> (Result<Applied>, Vec<Event>) {
        let plan = self.plan(app).await.expect("a plan");
        let mut events = Vec::new();
        let done = self.deployer.apply(plan, &mut |e: &Event| events.push(e.clone())).await;
        (done, events)
    }

    /// Plans a change and applies it.
    pub async fn change(&self, change: Change) -> Result<Applied> {
        let plan = self.deployer.plan(change).await?;
        self.deployer.apply(plan, &mut Silent).await
    }

    /// What runs of the app.
    pub async fn seen(&self) -> Observation {
        self.backend().observe(&self.app).await.expect("an observation")
    }

    /// The instances of a service that have not ended, by their ids.
    pub async fn instances(&self, service: &str) -> BTreeMap<String, Instance> {
        let all = self.seen().await.instances.into_iter();
        let live = all.filter(|i| i.service == service && i.exit().is_none());
        live.map(|i| (i.id.clone(), i)).collect()
    }

    /// The ids of a service's instances that have not ended.
    pub async fn ids(&self, service: &str) -> Vec<String> {
        self.instances(service).await.into_keys().collect()
    }

    /// The revisions that are kept.
    pub async fn history(&self) -> Vec<Revision> {
        self.deployer.history(&self.app).await.expect("a history")
    }

    /// Where a service is published.
    pub async fn address(&self, service: &str) -> Address {
        let seen = self.seen().await;
        let endpoint = seen.endpoints.get(service).expect("the service has an endpoint");
        endpoint.ports[0].public.clone().expect("the service is published")
    }

    /// Sends a request to a service.
    pub async fn send(&self, service: &str, method: &str, path: &str, body: &str) -> Answer {
        let (at, service) = (self.address(service).await, name(service));
        let mut client = self.client.another();
        let answer = client.send(&self.app, &service, &at, (method, path, body)).await;
        answer.expect("an answer")
    }

    /// The body of a service's answer to a GET, whose status has to be 200.
    pub async fn get(&self, service: &str, path: &str) -> String {
        let answer = self.send(service, "GET", path, "").await;
        assert_eq!(answer.status, 200, "GET {path} of {service}: {}", answer.body);
        answer.body
    }

    /// The version that a service answers with.
    pub async fn version(&self, service: &str) -> String {
        let facts: Facts = serde_json::from_str(&self.get(service, "/").await).expect("facts");
        facts.version
    }

    /// The version that a service answers with, where it answers.
    pub async fn version_if_answered(&self, service: &str) -> Option<String> {
        let (at, service) = (self.address(service).await, name(service));
        let mut client = self.client.another();
        let answer = client.send(&self.app, &service, &at, ("GET", "/version", "")).await;
        answer.ok().map(|answer| answer.body)
    }

    /// The environment of one of a service's instances.
    pub async fn env(&self, service: &str) -> BTreeMap<String, String> {
        serde_json::from_str(&self.get(service, "/env").await).expect("an environment")
    }

    /// The answer for a file under the folder that an environment variable names.
    pub async fn file(&self, service: &str, folder: &str, path: &str) -> Answer {
        self.send(service, "GET", &format!("/file?path=${folder}/{path}"), "").await
    }

    /// Writes a file of a volume.
    pub async fn write(&self, service: &str, path: &str, content: &str) -> Answer {
        self.send(service, "PUT", &format!("/file?path=$VOLUMES_DIR/{path}"), content).await
    }

    /// Begins to send requests to a service.
    pub async fn load(&self, service: &str) -> Load {
        Load::start(&*self.client, &self.app, &name(service), &self.address(service).await)
    }

    /// Polls until `check` yields something, for a minute at the longest.
    pub async fn eventually<T, F>(&self, what: &str, mut check: impl FnMut() -> F) -> T
    where
        F: Future<Output = Option<T>>,
    {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = check().await {
                return found;
            }
            if Instant::now() >= deadline {
                let seen = self.seen().await;
                panic!("not within {PATIENCE:?}: {what}; {seen:#?}");
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The name of a service or job in a test.
pub(crate) fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("the name in a test is valid")
}
