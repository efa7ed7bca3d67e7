#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use tokio::time::{Instant, sleep};

use super::Host;
use crate::hash::SpecHash;
use crate::memory::dial;
use crate::model::*;
use crate::resolved::{EndpointSpec, ResolvedApp};
use crate::{
    ErrorKind, ExecOutput, ExecRequest, Exit, InstanceSpec, InstanceState, LogQuery, OutputStream,
    Reason, Runtime, SecretValue,
};
use crate::{Fence, Instance};

struct Bench {
    host: Host,
    fence: Fence,
    app: AppName,
    web: ServiceName,
}

impl Bench {
    async fn new() -> Self {
        let (host, app) = (Host::new(), AppName::new("blog").unwrap());
        let lease = host.state().acquire(&app, "test", Duration::from_secs(600)).await.unwrap();
        Self { host, fence: lease.fence, app, web: ServiceName::new("web").unwrap() }
    }

    fn resolved(&self, service: ServiceBuilder) -> ResolvedApp {
        let app = App::build("blog").volume("data", VolumeScope::Shared).service(service);
        let image = ResolvedImage { source: "web".into(), digest: "sha256:1".into() };
        ResolvedApp {
            app: app.validate().unwrap(),
            images: BTreeMap::from([(self.web.clone(), image)]),
            secrets: BTreeMap::from([(SecretName::new("db").unwrap(), 1)]),
            restarts: BTreeMap::new(),
        }
    }

    /// Starts an instance that is routed.
    async fn start(&self, id: &str, service: ServiceBuilder) -> crate::Result<()> {
        let resolved = self.resolved(service);
        let template = resolved.template(&self.web).unwrap();
        let endpoint: EndpointSpec = resolved.endpoint(&self.web).unwrap();
        self.host.ensure_endpoint(&self.fence, &endpoint).await?;
        let spec = InstanceSpec {
            id: id.into(),
            service: self.web.clone(),
            revision: 1,
            hash: SpecHash::of(&template),
            slot: 0,
            job: false,
            depends_on: BTreeMap::new(),
            template,
        };
        self.host.start(&self.fence, &spec).await?;
        self.host.route(&self.fence, &self.web, &[id.to_owned()]).await
    }

    async fn instance(&self, id: &str) -> Instance {
        self.host.inspect(&self.app).await.unwrap().instance(id).unwrap().clone()
    }

    async fn until(&self, id: &str, check: impl Fn(&Instance) -> bool) -> Instance {
        for _ in 0..100_000 {
            let instance = self.instance(id).await;
            if check(&instance) {
                return instance;
            }
            sleep(Duration::from_millis(5)).await;
        }
        panic!("never: {:?}", self.instance(id).await)
    }

    async fn get(&self, path: &str) -> crate::Result<String> {
        Ok(self.host.request(&self.app, &self.web, "GET", path, "").await?.body)
    }
}

fn web() -> ServiceBuilder {
    Service::build("web", ImageSpec::binary("web"))
        .port(Port::http(8080))
        .readiness(Probe::http("/healthz"))
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_ready_when_its_probe_passes_and_answers_then() {
    let bench = Bench::new().await;
    let began = Instant::now();
    let slow = web().env(dial::START_DELAY_MS, "5000").env(dial::VERSION, "7");
    bench.start("web-1", slow).await.unwrap();
    assert!(!bench.instance("web-1").await.ready);
    assert_eq!(bench.get("/version").await.unwrap(), "7");
    assert!(began.elapsed() >= Duration::from_secs(5));
    assert!(bench.instance("web-1").await.ready);
}

#[tokio::test(start_paused = true)]
async fn a_failing_probe_is_named() {
    let bench = Bench::new().await;
    bench.start("web-1", web().env(dial::UNHEALTHY_AFTER_MS, "0")).await.unwrap();
    let seen = bench.until("web-1", |i| i.trouble.is_some()).await;
    assert!(!seen.ready);
    let Some(Reason::ProbeFailing { probe, answer, .. }) = seen.trouble else {
        panic!("{:?}", seen.trouble)
    };
    assert_eq!((probe.as_str(), answer.as_str()), ("readiness", "503 Service Unavailable"));
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_becomes_ill_is_no_longer_ready_and_a_dead_one_is_started_again() {
    let bench = Bench::new().await;
    let ill = web().env(dial::UNHEALTHY_AFTER_MS, "10000").liveness(Probe::http("/healthz"));
    bench.start("web-1", ill).await.unwrap();
    bench.until("web-1", |i| i.ready).await;
    bench.until("web-1", |i| !i.ready).await;
    bench.until("web-1", |i| i.restarts == 1 && i.ready).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_is_followed_by_a_start_after_growing_pauses() {
    let bench = Bench::new().await;
    let crashing = web().env(dial::EXIT_AFTER_MS, "10").env(dial::EXIT_CODE, "3");
    let crashing = crashing.env(dial::UNHEALTHY_AFTER_MS, "0").env(dial::PRINT, "no database");
    bench.start("web-1", crashing).await.unwrap();
    let mut pauses = Vec::new();
    for n in 1..=4 {
        let before = Instant::now();
        let seen = bench.until("web-1", |i| i.restarts >= n).await;
        pauses.push(before.elapsed());
        let Some(Reason::CrashLoop { exit, log, .. }) = seen.trouble else { panic!() };
        assert_eq!((exit.as_str(), log.last().unwrap().as_str()), ("exit code 3", "no database"));
    }
    assert!(pauses.is_sorted(), "{pauses:?}");
    bench.host.stop(&bench.fence, "web-1").await.unwrap();
    assert!(bench.instance("web-1").await.exit().is_some());
}

#[tokio::test(start_paused = true)]
async fn stopping_takes_the_grace_period_of_a_stubborn_instance_and_no_more() {
    let bench = Bench::new().await;
    for (id, dial, exit) in
        [("web-1", dial::VERSION, Exit::Code(0)), ("web-2", dial::IGNORE_STOP, Exit::Signal(9))]
    {
        bench.start(id, web().env(dial, "1").stop_grace(Duration::from_secs(7))).await.unwrap();
        bench.until(id, |i| i.ready).await;
        let began = Instant::now();
        assert!(bench.host.remove(&bench.fence, id).await.is_err(), "it runs");
        bench.host.stop(&bench.fence, id).await.unwrap();
        assert_eq!(bench.instance(id).await.state, InstanceState::Exited(exit));
        assert_eq!(began.elapsed().as_secs(), if exit.is_success() { 0 } else { 7 });
        bench.host.remove(&bench.fence, id).await.unwrap();
    }
    assert!(bench.host.inspect(&bench.app).await.unwrap().instances.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_drained_instance_answers_what_it_has_taken_and_gets_nothing_new() {
    let bench = Bench::new().await;
    bench.start("web-1", web()).await.unwrap();
    let host = bench.host.clone();
    let (app, service) = (bench.app.clone(), bench.web.clone());
    let slow = tokio::spawn(async move {
        host.request(&app, &service, "GET", "/slow?ms=3000", "").await.unwrap().body
    });
    sleep(Duration::from_secs(1)).await;
    bench.start("web-2", web()).await.unwrap();
    assert_eq!(bench.get("/instance").await.unwrap(), "web-2");
    let drain = |ms| bench.host.drain(&bench.fence, &bench.web, "web-1", Duration::from_millis(ms));
    assert!(!drain(500).await.unwrap());
    assert!(drain(60_000).await.unwrap());
    assert!(slow.await.unwrap().contains("web-1"));
}

#[tokio::test(start_paused = true)]
async fn a_killed_instance_breaks_its_requests_and_comes_back() {
    let bench = Bench::new().await;
    bench.start("web-1", web()).await.unwrap();
    bench.until("web-1", |i| i.ready).await;
    let (broken, ()) = tokio::join!(bench.get("/slow?ms=3000"), async {
        sleep(Duration::from_secs(1)).await;
        bench.host.kill(&bench.app, "web-1").unwrap();
    });
    assert_eq!(broken.unwrap_err().kind(), ErrorKind::Failed);
    bench.until("web-1", |i| i.ready && i.restarts == 1).await;
}

#[tokio::test(start_paused = true)]
async fn files_environment_commands_and_output() {
    let bench = Bench::new().await;
    let db = SecretName::new("db").unwrap();
    let service = || web().secret("db").volume("data").env("GREETING", "a 'b' $c").arg("--x y");
    let missing = bench.start("web-1", service()).await.unwrap_err();
    let reason = &missing.diagnoses()[0].reason;
    assert_eq!(*reason, Reason::SecretMissing { secret: "db@1".into() });
    bench.host.secrets().put(&bench.app, &db, SecretValue::new("hunter2")).await.unwrap();
    let data = VolumeName::new("data").unwrap();
    bench.host.ensure_volume(&bench.fence, &data, &Volume::default()).await.unwrap();
    bench.start("web-1", service()).await.unwrap();
    assert_eq!(bench.get("/file?path=/secrets/db").await.unwrap(), "hunter2");
    assert_eq!(bench.get("/args").await.unwrap(), r#"["--x y"]"#);
    let note = "/file?path=/volumes/data/note";
    let put = bench.host.request(&bench.app, &bench.web, "PUT", note, "kept").await.unwrap();
    assert_eq!((put.status, bench.get(note).await.unwrap().as_str()), (200, "kept"));

    let env: Vec<ExecOutput> = bench
        .host
        .exec(&bench.app, "web-1", ExecRequest::new(["/bin/env"]))
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    let ExecOutput::Output(OutputStream::Stdout, text) = &env[0] else { panic!("{env:?}") };
    let text = String::from_utf8_lossy(text);
    assert!(text.contains("GREETING=a 'b' $c\n") && text.contains("PORT=8080\n"), "{text}");
    assert_eq!(env[1], ExecOutput::Exit(Exit::Code(0)));

    let query = LogQuery { follow: true, tail: Some(1), ..LogQuery::default() };
    let mut lines = bench.host.logs(&bench.app, &query).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().instance, "web-1");
    bench.start("web-2", service()).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().instance, "web-2");
}

#[tokio::test(start_paused = true)]
async fn a_late_deployer_is_refused() {
    let bench = Bench::new().await;
    bench.start("web-1", web()).await.unwrap();
    sleep(Duration::from_secs(601)).await;
    bench.host.state().acquire(&bench.app, "next", Duration::from_secs(30)).await.unwrap();
    let before = bench.host.mutations();
    let late = bench.host.stop(&bench.fence, "web-1").await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
    assert_eq!(bench.host.mutations(), before);
    assert_eq!(bench.instance("web-1").await.state, InstanceState::Running);
}

#[tokio::test(start_paused = true)]
async fn watches_tell_of_changes() {
    let bench = Bench::new().await;
    let mut watch = bench.host.watch(&bench.app).await.unwrap();
    bench.start("web-1", web()).await.unwrap();
    watch.next().await.unwrap().unwrap();
    bench.host.vanish(&bench.app, "web-1").unwrap();
    watch.next().await.unwrap().unwrap();
    assert!(bench.host.inspect(&bench.app).await.unwrap().instances.is_empty());
}

#[tokio::test]
async fn a_host_port_is_given_to_one_service_only() {
    let bench = Bench::new().await;
    let fixed = web().port(Port::tcp(5432).publish(Publish::HostPort(5432)));
    bench.start("web-1", fixed.clone()).await.unwrap();
    let other = AppName::new("other").unwrap();
    let fence =
        bench.host.state().acquire(&other, "x", Duration::from_secs(1)).await.unwrap().fence;
    let endpoint = bench.resolved(fixed).endpoint(&bench.web).unwrap();
    let taken = bench.host.ensure_endpoint(&fence, &endpoint).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    assert!(taken.to_string().contains("port 5432 belongs to blog/web"), "{taken}");
}
