//! Services: addresses, routes, probes, secrets, volumes, output, commands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use common::*;
use deploykit_core::model::*;
use deploykit_core::{
    EndpointSpec, ErrorKind, ExecOutput, ExecRequest, Exit, InstanceState, LogQuery, OutputStream,
    Reason, Runtime as _, SecretValue, Template,
};
use deploykit_local::{Lifetime, Local};
use futures_util::StreamExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const PYTHON: &str = r#"
import http.server, os, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        ill = os.path.exists(os.environ['ILL'])
        body = os.environ['DEPLOYKIT_INSTANCE'].encode()
        self.send_response(500 if ill and self.path == '/healthz' else 200)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer((os.environ['HOST'], int(os.environ['PORT'])), H).serve_forever()
"#;

/// A web server that answers with its instance's id, and is ill while a file is there.
async fn web(local: &Local, ill: &Path) -> Template {
    let mut template =
        shell(local, &format!("exec python3 -c '{}'", PYTHON.replace('\'', "\""))).await;
    template.env.insert("ILL".into(), ill.display().to_string());
    template.ports = vec![Port::http(8080)];
    template.probes.readiness = Some(Probe::http("/healthz").interval(Duration::from_millis(50)));
    template
}

async fn get(address: &Address) -> String {
    let mut stream = TcpStream::connect((address.host.as_str(), address.port)).await.unwrap();
    let request = "GET / HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    answer.rsplit_once("\r\n\r\n").unwrap().1.to_owned()
}

#[tokio::test]
async fn requests_go_to_who_is_routed_and_ready() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let web_service = service("web");
    let spec = EndpointSpec::new(web_service.clone(), vec![Port::http(8080).public()]);
    local.ensure_endpoint(&fence, &spec).await.unwrap();
    local.ensure_endpoint(&fence, &spec).await.unwrap();
    let endpoint = local.inspect(&app()).await.unwrap().endpoints[&web_service].clone();
    let (inner, outer) = (endpoint.ports[0].address.clone(), endpoint.ports[0].public.clone());
    assert!(inner.host.starts_with("127.77."), "{inner}");
    assert_eq!(inner.port, 8080);
    let ill: Vec<_> = (0..2).map(|n| bed.temporary.path().join(format!("ill-{n}"))).collect();
    for (n, ill) in ill.iter().enumerate() {
        let template = web(&local, ill).await;
        local.start(&fence, &instance(&format!("web-{n}"), "web", template)).await.unwrap();
    }
    // A request that comes before any instance is ready waits for one.
    local.route(&fence, &web_service, &["web-0".into()]).await.unwrap();
    assert_eq!(get(&inner).await, "web-0");
    until(&local, "both are ready", |s| s.instances.iter().all(|i| i.ready)).await;
    for _ in 0..20 {
        assert_eq!(get(outer.as_ref().unwrap()).await, "web-0", "only it is routed");
    }
    local.route(&fence, &web_service, &["web-0".into(), "web-1".into()]).await.unwrap();
    let mut seen = BTreeMap::new();
    for _ in 0..20 {
        *seen.entry(get(&inner).await).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 2, "{seen:?}");

    std::fs::write(&ill[0], "").unwrap();
    let failing = until(&local, "its probe fails", |s| {
        s.instance("web-0").is_some_and(|i| !i.ready && i.trouble.is_some())
    })
    .await;
    match &failing.instance("web-0").unwrap().trouble {
        Some(Reason::ProbeFailing { probe, answer, .. }) => {
            assert_eq!(probe, "readiness");
            assert!(answer.contains("500"), "{answer}");
        }
        other => panic!("{other:?}"),
    }
    for _ in 0..20 {
        assert_eq!(get(&inner).await, "web-1", "only it is ready");
    }
    std::fs::remove_file(&ill[0]).unwrap();
    let well =
        until(&local, "it is well again", |s| s.instance("web-0").is_some_and(|i| i.ready)).await;
    assert_eq!(well.instance("web-0").unwrap().trouble, None);
    assert_eq!(well.instance("web-0").unwrap().restarts, 0);
    local.route(&fence, &web_service, &["web-1".into()]).await.unwrap();
    assert!(local.drain(&fence, &web_service, "web-0", LONG).await.unwrap());

    local.remove_endpoint(&fence, &web_service).await.unwrap();
    assert!(TcpStream::connect((inner.host.as_str(), inner.port)).await.is_err());
    local.close().await;
}

#[tokio::test]
async fn a_failing_liveness_probe_starts_it_again() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let ill = bed.temporary.path().join("ill");
    let mut template = shell(&local, "while :; do sleep 0.05; done").await;
    template.env.insert("ILL".into(), ill.display().to_string());
    let check = Probe::exec(["sh", "-c", "test ! -e $ILL || { echo feverish; exit 1; }"]);
    template.probes.liveness = Some(check.interval(Duration::from_millis(30)).failure_threshold(2));
    local.start(&fence, &instance("web-1", "web", template)).await.unwrap();
    let seen = until(&local, "it is ready", |s| s.instances.iter().all(|i| i.ready)).await;
    std::fs::write(&ill, "").unwrap();
    let runs = |i: &deploykit_core::Instance| i.restarts > 0 && i.state == InstanceState::Running;
    let again = until(&local, "it is started again", |s| runs(&s.instances[0])).await;
    assert_ne!(pid(&again, "web-1"), pid(&seen, "web-1"));
    std::fs::remove_file(&ill).unwrap();
    until(&local, "it stays", |s| s.instances[0].ready).await;
    local.close().await;
}

#[tokio::test]
async fn a_taken_port_is_an_error_or_another_port() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let fixed = Port::tcp(9000).publish(Publish::HostPort(port));
    let spec = EndpointSpec::new(service("fixed"), vec![fixed]);
    let error = local.ensure_endpoint(&fence, &spec).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    assert!(matches!(error.diagnoses()[0].reason, Reason::PortTaken { port: p, .. } if p == port));
    assert!(local.inspect(&app()).await.unwrap().endpoints.is_empty());

    let everywhere = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let declared = everywhere.local_addr().unwrap().port();
    let spec = EndpointSpec::new(service("moved"), vec![Port::tcp(declared).public()]);
    local.ensure_endpoint(&fence, &spec).await.unwrap();
    let seen = local.inspect(&app()).await.unwrap();
    let ports = &seen.endpoints[&service("moved")].ports[0];
    assert_ne!(ports.address.port, declared);
    assert_ne!(ports.public.as_ref().unwrap().port, declared);
    // Whoever depends on it is told the port that it got.
    let mut template = shell(&local, "echo $MOVED_SERVICE_HOST:$MOVED_SERVICE_PORT").await;
    template.peers.insert(service("moved"), declared);
    let mut job = instance("job-1", "job", template);
    job.job = true;
    local.start(&fence, &job).await.unwrap();
    until(&local, "it has ended", |s| s.instances[0].exit().is_some()).await;
    let told = std::fs::read_to_string(bed.folder().join("logs/job-1.out")).unwrap();
    assert_eq!(told.trim(), ports.address.to_string());
    local.close().await;
}

#[tokio::test]
async fn secrets_configs_and_volumes_are_where_the_contract_says() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let (secret, value) = (SecretName::new("db").unwrap(), "hunter2 & co, \u{e4}\n");
    assert_eq!(local.secrets().put(&app(), &secret, SecretValue::new(value)).await.unwrap(), 1);
    assert_eq!(local.secrets().get(&app(), &secret, 1).await.unwrap().expose(), value.as_bytes());
    let volume = VolumeName::new("data").unwrap();
    local.ensure_volume(&fence, &volume, &Volume::default()).await.unwrap();
    let script = "cat $SECRETS_DIR/db; stat -c %a $SECRETS_DIR/db; cat $CONFIGS_DIR/title; echo;
        echo kept >> $VOLUMES_DIR/data/file; echo own >> $VOLUMES_DIR/own/file; env | sort; sleep 1000";
    let mut template = shell(&local, script).await;
    template.secrets.insert(secret.clone(), 1);
    template.configs.insert(ConfigName::new("title").unwrap(), "My 'blog' $HOME".into());
    template.volumes.insert(volume.clone(), VolumeScope::Shared);
    template.volumes.insert(VolumeName::new("own").unwrap(), VolumeScope::PerReplica);
    template.ports = vec![Port::http(8080), Port::tcp(9000).named(PortName::new("admin").unwrap())];
    let mut spec = instance("web-1", "web", template);
    spec.slot = 2;
    local.start(&fence, &spec).await.unwrap();
    let log = bed.folder().join("logs/web-1.out");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it has said all", async || read().contains("VOLUMES_DIR=")).await;
    let said = read();
    assert!(said.starts_with(&format!("{value}400\nMy 'blog' $HOME\n")), "{said}");
    let seen = local.inspect(&app()).await.unwrap();
    let ports: Vec<u16> = seen.instances[0].addresses.iter().map(|a| a.port).collect();
    for line in [
        "HOST=127.0.0.1".to_owned(),
        format!("PORT={}", ports[0]),
        format!("PORT_ADMIN={}", ports[1]),
        "ADVERTISE_HOST=127.0.0.1".to_owned(),
        "DEPLOYKIT_INSTANCE=web-1".to_owned(),
    ] {
        assert!(said.lines().any(|l| l == line), "{line} is missing in {said}");
    }
    let place = said.lines().find_map(|l| l.strip_prefix("SECRETS_DIR=")).unwrap().to_owned();
    assert!(Path::new(&place).is_dir());
    let volumes = bed.folder().join("volumes/blog");
    assert_eq!(std::fs::read_to_string(volumes.join("data/file")).unwrap(), "kept\n");
    assert_eq!(std::fs::read_to_string(volumes.join("own.2/file")).unwrap(), "own\n");
    assert_eq!(seen.volumes.len(), 2);

    stop_and_remove(&local, &fence, "web-1").await;
    assert!(!Path::new(&place).exists(), "its secrets are gone");
    assert!(!log.exists());
    local.secrets().delete(&app(), &secret, &[1]).await.unwrap();
    local.close().await;
    assert!(volumes.join("data/file").exists(), "volumes stay");
    let rest: Vec<_> = std::fs::read_dir(bed.folder()).unwrap().flatten().collect();
    assert_eq!(rest.len(), 1, "and nothing else: {rest:?}");
    assert_eq!(std::fs::read_dir(bed.keys()).unwrap().count(), 0, "the key is gone");
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    for name in ["data", "own"] {
        local.remove_volume(&fence, &VolumeName::new(name).unwrap()).await.unwrap();
    }
    assert!(local.inspect(&app()).await.unwrap().volumes.is_empty());
    local.close().await;
    assert!(!bed.folder().exists());
}

#[tokio::test]
async fn a_secret_is_nowhere_but_with_its_instance() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let name = SecretName::new("db").unwrap();
    let value = "s3cr3t/value+with=signs";
    let forms = [
        value.to_owned(),
        "czNjcjN0L3ZhbHVlK3dpdGg9c2lnbnM".to_owned(),
        "s3cr3t%2Fvalue%2Bwith%3Dsigns".to_owned(),
        value.bytes().map(|b| format!("{b:02x}")).collect(),
    ];
    local.secrets().put(&app(), &name, SecretValue::new(value)).await.unwrap();
    local.secrets().put(&app(), &name, SecretValue::new(format!("{value}2"))).await.unwrap();
    local.secrets().delete(&app(), &name, &[2]).await.unwrap();
    let mut template = shell(&local, "cat $SECRETS_DIR/db | wc -c; sleep 1000").await;
    template.secrets.insert(name.clone(), 1);
    local.start(&fence, &instance("web-1", "web", template)).await.unwrap();
    let log = bed.folder().join("logs/web-1.out");
    let read = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("it has read its secret", async || read().trim() == value.len().to_string()).await;
    let seen = local.inspect(&app()).await.unwrap();
    let running = pid(&seen, "web-1");
    let mut places = files(&bed.folder());
    assert!(places.iter().any(|p| p.ends_with("state.db")), "{places:?}");
    for what in ["cmdline", "environ"] {
        places.push(format!("/proc/{running}/{what}").into());
        places.push(format!("/proc/self/{what}").into());
    }
    for place in places {
        let content = std::fs::read(&place).unwrap();
        for form in &forms {
            let found =
                content.windows(form.len()).any(|w| w.eq_ignore_ascii_case(form.as_bytes()));
            assert!(!found, "{form} is in {}", place.display());
        }
    }
    let shown = format!("{seen:?} {}", serde_json::to_string(&seen).unwrap());
    assert!(!forms.iter().any(|form| shown.contains(form)));
    local.close().await;
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().flatten();
    entries
        .flat_map(|entry| match entry.file_type().unwrap() {
            kind if kind.is_dir() => files(&entry.path()),
            kind if kind.is_file() => vec![entry.path()],
            _ => vec![],
        })
        .collect()
}

#[tokio::test]
async fn without_its_key_a_folder_gives_no_secret() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let name = SecretName::new("db").unwrap();
    local.secrets().ensure(&app(), &name, SecretValue::new("one")).await.unwrap();
    assert_eq!(local.secrets().ensure(&app(), &name, SecretValue::new("two")).await.unwrap(), 1);
    local.close().await;
    let key = std::fs::read_dir(bed.keys()).unwrap().flatten().next().unwrap().path();
    assert_eq!(std::fs::metadata(&key).unwrap().mode() & 0o777, 0o600);
    std::fs::remove_file(&key).unwrap();
    let local = bed.open().await;
    for error in [
        local.secrets().get(&app(), &name, 1).await.unwrap_err(),
        local.secrets().put(&app(), &name, SecretValue::new("three")).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert_eq!(
            error.message(),
            "the key is missing, and the secrets cannot be read without it: put the key \
             file back, or delete the secrets and set them anew"
        );
    }
    local.secrets().delete(&app(), &name, &[1]).await.unwrap();
    assert_eq!(local.secrets().put(&app(), &name, SecretValue::new("new")).await.unwrap(), 2);
    local.close().await;
}

#[tokio::test]
async fn output_is_told_apart_tailed_and_followed() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let go = bed.temporary.path().join("go");
    let script = format!(
        "for n in 1 2 3 4 5; do echo out $n; echo err $n >&2; done; while [ ! -e {} ]; do sleep 0.02; done; \
         echo more; sleep 1000",
        go.display()
    );
    local.start(&fence, &instance("web-1", "web", shell(&local, &script).await)).await.unwrap();
    let other = shell(&local, "echo other; sleep 1000").await;
    local.start(&fence, &instance("other-1", "other", other)).await.unwrap();
    let mut query = LogQuery { service: Some(service("web")), ..LogQuery::default() };
    let lines = async |query: &LogQuery| -> Vec<_> {
        let stream = local.logs(&app(), query).await.unwrap();
        stream.map(|l| l.unwrap()).map(|l| (l.instance, l.stream, l.line)).collect().await
    };
    eventually("all is written", async || lines(&query).await.len() == 10).await;
    query.tail = Some(1);
    assert_eq!(
        lines(&query).await,
        [
            ("web-1".to_owned(), OutputStream::Stdout, "out 5".to_owned()),
            ("web-1".to_owned(), OutputStream::Stderr, "err 5".to_owned()),
        ]
    );
    let all = LogQuery::default();
    eventually("the other's too", async || lines(&all).await.len() == 11).await;
    query.follow = true;
    let mut follow = local.logs(&app(), &query).await.unwrap();
    for _ in 0..2 {
        follow.next().await.unwrap().unwrap();
    }
    std::fs::write(&go, "").unwrap();
    let next = tokio::time::timeout(LONG, follow.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((next.line.as_str(), next.stream), ("more", OutputStream::Stdout));
    // An instance that comes later is followed too.
    let late = shell(&local, "echo late; sleep 1000").await;
    local.start(&fence, &instance("web-2", "web", late)).await.unwrap();
    let next = tokio::time::timeout(LONG, follow.next()).await.unwrap().unwrap().unwrap();
    assert_eq!((next.instance.as_str(), next.line.as_str()), ("web-2", "late"));
    local.close().await;
}

#[tokio::test]
async fn a_command_runs_beside_an_instance() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let mut template = shell(&local, "sleep 1000").await;
    template.env.insert("COLOUR".into(), "a 'b' $c".into());
    local.start(&fence, &instance("web-1", "web", template)).await.unwrap();
    let run = async |request: ExecRequest| -> (Vec<u8>, Vec<u8>, Exit) {
        let mut stream = local.exec(&app(), "web-1", request).await.unwrap();
        let (mut out, mut err, mut exit) = (vec![], vec![], None);
        while let Some(output) = stream.next().await {
            match output.unwrap() {
                ExecOutput::Output(OutputStream::Stdout, bytes) => out.extend(bytes),
                ExecOutput::Output(OutputStream::Stderr, bytes) => err.extend(bytes),
                ExecOutput::Exit(code) => exit = Some(code),
            }
        }
        (out, err, exit.unwrap())
    };
    let script = "printf %s \"$COLOUR\"; printf %s \"$DEPLOYKIT_INSTANCE\" >&2; exit 3";
    let (out, err, exit) = run(ExecRequest::new(["sh", "-c", script])).await;
    assert_eq!(
        (out.as_slice(), err.as_slice(), exit),
        (&b"a 'b' $c"[..], &b"web-1"[..], Exit::Code(3))
    );
    let mut copy = ExecRequest::new(["cat"]);
    copy.stdin = vec![7; 300_000];
    let (out, _, exit) = run(copy).await;
    assert_eq!((out.len(), exit), (300_000, Exit::Code(0)));

    let file = bed.temporary.path().join("pid");
    let script = format!("echo $$ > {0}.new; mv {0}.new {0}; sleep 1000", file.display());
    let stream =
        local.exec(&app(), "web-1", ExecRequest::new(["sh", "-c", &script])).await.unwrap();
    eventually("it runs", async || file.exists()).await;
    let running: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    drop(stream);
    eventually("it is ended", async || !alive(running)).await;

    let failed = async |instance: &str, command: &[&str]| {
        let request = ExecRequest::new(command.iter().copied());
        local.exec(&app(), instance, request).await.err().unwrap().kind()
    };
    assert_eq!(failed("web-9", &["true"]).await, ErrorKind::NotFound);
    assert_eq!(failed("web-1", &[]).await, ErrorKind::Invalid);
    assert_eq!(failed("web-1", &["/no/such/program"]).await, ErrorKind::Failed);
    local.stop(&fence, "web-1").await.unwrap();
    assert_eq!(failed("web-1", &["true"]).await, ErrorKind::Conflict);
    local.close().await;
}

#[tokio::test]
async fn a_watch_tells_of_each_change() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let mut watch = local.watch(&app()).await.unwrap();
    let mut other = local.watch(&AppName::new("other").unwrap()).await.unwrap();
    local
        .start(&fence, &instance("web-1", "web", shell(&local, "sleep 1000").await))
        .await
        .unwrap();
    tokio::time::timeout(LONG, watch.next()).await.unwrap().unwrap().unwrap();
    let nothing = tokio::time::timeout(Duration::from_millis(100), other.next()).await;
    assert!(nothing.is_err(), "another app's change");
    local.close().await;
    let end = tokio::time::timeout(LONG, async { while let Some(Ok(())) = watch.next().await {} });
    end.await.unwrap();
}

#[tokio::test]
async fn a_cold_start_goes_by_what_depends_on_what() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let order = bed.temporary.path().join("order");
    let up = bed.temporary.path().join("up");
    let script = |name: &str| {
        format!("echo {name} >> {}; sleep 0.2; touch {}; sleep 1000", order.display(), up.display())
    };
    let mut store = shell(&local, &script("store")).await;
    let probe = Probe::exec(["test", "-e", &up.display().to_string()]);
    store.probes.readiness = Some(probe.interval(Duration::from_millis(20)));
    // By its id it would come first.
    let mut api = instance("api-1", "api", shell(&local, &script("api")).await);
    api.depends_on.insert(service("store"), Condition::Healthy);
    api.depends_on.insert(service("migrate"), Condition::Completed);
    local.start(&fence, &instance("store-1", "store", store)).await.unwrap();
    local.start(&fence, &api).await.unwrap();
    until(&local, "all are ready", |s| s.instances.iter().all(|i| i.ready)).await;
    local.close().await;
    std::fs::remove_file(&order).unwrap();
    std::fs::remove_file(&up).unwrap();
    let local = bed.open().await;
    until(&local, "the first is ready", |s| s.instance("store-1").is_some_and(|i| i.ready)).await;
    until(&local, "all are ready", |s| s.instances.iter().all(|i| i.ready)).await;
    let read = || std::fs::read_to_string(&order).unwrap();
    eventually("both have begun", async || read().lines().count() == 2).await;
    assert_eq!(read(), "store\napi\n");
    local.close().await;
}
