//! The supervisor as a process of its own: this test program, executed again.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::future::Future;
use std::time::Duration;

use common::*;
use deploykit_core::model::*;
use deploykit_core::{EndpointSpec, Exit, Runtime as _, SecretValue, StateStore as _};
use deploykit_local::{Lifetime, Local};
use libtest_mimic::{Arguments, Trial};

fn main() {
    deploykit_local::init();
    let tests = vec![
        trial("a_killed_supervisor_is_followed_by_one_that_adopts", adopts),
        trial("what_a_supervisor_was_doing_when_it_was_killed_is_finished", finishes),
        trial("after_a_reboot_everything_is_started_again", reboot),
        trial("it_outlives_its_client_and_ends_when_it_has_nothing_to_host", ends_by_itself),
        trial("many_clients_at_once_get_one_supervisor", one_supervisor),
        trial("a_stale_socket_and_a_damaged_state_file", stale_and_damaged),
        trial("a_supervisor_of_another_protocol_is_refused", other_protocol),
    ];
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}

fn trial<F: Future<Output = ()> + 'static>(name: &str, test: fn() -> F) -> Trial {
    Trial::test(name, move || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
        Ok(())
    })
}

/// Removes everything and waits until the supervisor has gone with its files.
async fn clean(bed: &Bed, local: Local) {
    let lease = local.acquire(&app(), "the end", Duration::from_secs(30)).await;
    let fence = lease.unwrap().fence;
    let seen = local.inspect(&app()).await.unwrap();
    for instance in &seen.instances {
        stop_and_remove(&local, &fence, &instance.id).await;
    }
    for service in seen.endpoints.keys() {
        local.remove_endpoint(&fence, service).await.unwrap();
    }
    local.close().await;
    eventually("the supervisor has ended", async || supervisor(&bed.folder()).is_none()).await;
    assert!(!bed.folder().exists(), "nothing is left: {:?}", std::fs::read_dir(bed.folder()));
}

async fn adopts() {
    let bed = Bed::new(Lifetime::Detached);
    let local = bed.open().await;
    let lease = local.acquire(&app(), "a test", Duration::from_millis(1)).await.unwrap();
    let fence = &lease.fence;
    local.state().put(fence, "revision", "1", deploykit_core::Expected::Absent).await.unwrap();
    let web = EndpointSpec::new(service("web"), vec![Port::tcp(8080)]);
    local.ensure_endpoint(fence, &web).await.unwrap();
    for id in ["web-1", "web-2", "web-3"] {
        local.start(fence, &instance(id, "web", shell(&local, "sleep 1000").await)).await.unwrap();
    }
    local.route(fence, &service("web"), &["web-1".into()]).await.unwrap();
    let before =
        until(&local, "all are ready", |s| s.instances.iter().filter(|i| i.ready).count() == 3)
            .await;
    let first = supervisor(&bed.folder()).unwrap();

    kill("-KILL", first);
    eventually("it is dead", async || !alive(first)).await;
    assert!(["web-1", "web-2", "web-3"].iter().all(|id| alive(pid(&before, id))), "they go on");
    kill("-KILL", pid(&before, "web-3"));
    let after =
        until(&local, "all are ready", |s| s.instances.iter().filter(|i| i.ready).count() == 3)
            .await;
    assert_ne!(supervisor(&bed.folder()).unwrap(), first);
    for id in ["web-1", "web-2"] {
        assert_eq!(pid(&after, id), pid(&before, id), "{id} is adopted");
        assert_eq!(after.instance(id).unwrap().restarts, 0);
    }
    assert_ne!(pid(&after, "web-3"), pid(&before, "web-3"));
    assert_eq!(after.instance("web-3").unwrap().restarts, 1);
    assert_eq!(after.endpoints, before.endpoints, "the same addresses");
    assert_eq!(local.state().get(&app(), "revision").await.unwrap().unwrap().value, "1");

    // An adopted one is watched: its end is seen, and is no success.
    kill("-TERM", pid(&after, "web-1"));
    until(&local, "it is started again", |s| {
        s.instance("web-1").is_some_and(|i| i.ready && i.restarts == 1)
    })
    .await;
    local.stop(fence, "web-2").await.unwrap();
    assert_eq!(
        local.inspect(&app()).await.unwrap().instance("web-2").unwrap().exit(),
        Some(Exit::Lost)
    );
    assert!(!alive(pid(&after, "web-2")));
    let version = local.state().get(&app(), "revision").await.unwrap().unwrap().version;
    local.state().delete(fence, "revision", version).await.unwrap();
    clean(&bed, local).await;
}

async fn finishes() {
    let bed = Bed::new(Lifetime::Detached);
    let local = bed.open().await;
    let lease = local.acquire(&app(), "a test", Duration::from_millis(1)).await.unwrap();
    // It takes its time to end: the supervisor is killed meanwhile.
    let slow = shell(&local, "trap '' TERM; echo up; while :; do sleep 0.05; done").await;
    let slow = deploykit_core::Template { stop_grace: Duration::from_secs(2), ..slow };
    local.start(&lease.fence, &instance("slow-1", "slow", slow)).await.unwrap();
    let mut job = instance("job-1", "job", shell(&local, "sleep 1000").await);
    job.job = true;
    local.start(&lease.fence, &job).await.unwrap();
    let seen = local.inspect(&app()).await.unwrap();
    let (slow, job) = (pid(&seen, "slow-1"), pid(&seen, "job-1"));
    let first = supervisor(&bed.folder()).unwrap();
    let stopping = bed.open().await;
    let fence = lease.fence.clone();
    let stop = tokio::spawn(async move { stopping.stop(&fence, "slow-1").await });
    until(&local, "it is stopping", |s| {
        s.instance("slow-1").is_some_and(|i| i.state == deploykit_core::InstanceState::Stopping)
    })
    .await;
    kill("-KILL", first);
    eventually("it is dead", async || !alive(first)).await;
    kill("-KILL", job);
    let seen =
        until(&local, "both have ended", |s| s.instances.iter().all(|i| i.exit().is_some())).await;
    assert_eq!(
        seen.instance("job-1").unwrap().exit(),
        Some(Exit::Lost),
        "a job is not started twice"
    );
    assert!(!alive(slow));
    stop.await.unwrap().unwrap();
    clean(&bed, local).await;
}

async fn reboot() {
    let bed = Bed::new(Lifetime::Detached);
    let local = bed.open().await;
    let lease = local.acquire(&app(), "a test", Duration::from_millis(1)).await.unwrap();
    let name = SecretName::new("db").unwrap();
    local.secrets().ensure(&app(), &name, SecretValue::new("hunter2")).await.unwrap();
    let mut template = shell(&local, "cat \"$SECRETS_DIR/db\"; echo; sleep 1000").await;
    template.secrets.insert(name.clone(), 1);
    local.start(&lease.fence, &instance("web-1", "web", template)).await.unwrap();
    let mut job = instance("job-1", "job", shell(&local, "exit 0").await);
    job.job = true;
    local.start(&lease.fence, &job).await.unwrap();
    let both = |s: &deploykit_core::Observation| {
        s.instance("web-1").is_some_and(|i| i.ready)
            && s.instance("job-1").is_some_and(|i| i.exit().is_some())
    };
    let before = until(&local, "both are there", both).await;
    let first = supervisor(&bed.folder()).unwrap();
    kill("-KILL", first);
    eventually("it is dead", async || !alive(first)).await;
    kill("-KILL", pid(&before, "web-1"));
    // What a reboot leaves: rows of another boot, nothing in memory.
    let database = rusqlite::Connection::open(bed.folder().join("state.db")).unwrap();
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let changed = database
        .execute("UPDATE instances SET phase = replace(phase, ?1, 'another-boot')", [boot.trim()])
        .unwrap();
    assert_eq!(changed, 2);
    let id: String = database.query_row("SELECT id FROM folder", [], |row| row.get(0)).unwrap();
    drop(database);
    for place in
        ["/dev/shm".to_owned(), format!("/run/user/{}", rustix::process::getuid().as_raw())]
    {
        let _ = std::fs::remove_dir_all(format!(
            "{place}/deploykit-{}-{id}",
            rustix::process::getuid().as_raw()
        ));
    }
    let after = until(&local, "both are there", both).await;
    assert_ne!(pid(&after, "web-1"), pid(&before, "web-1"));
    assert_eq!(after.instance("web-1").unwrap().restarts, 0, "a reboot is no crash");
    assert_eq!(
        after.instance("job-1").unwrap().exit(),
        Some(Exit::Code(0)),
        "a job does not run again"
    );
    let log = bed.folder().join("logs/web-1.out");
    eventually("it has its secret again", async || {
        std::fs::read_to_string(&log).unwrap() == "hunter2\nhunter2\n"
    })
    .await;
    local.secrets().delete(&app(), &name, &[1]).await.unwrap();
    clean(&bed, local).await;
}

async fn ends_by_itself() {
    let bed = Bed::new(Lifetime::Detached);
    let local = bed.open().await;
    assert!(supervisor(&bed.folder()).is_none(), "none before the first call");
    let lease = local.acquire(&app(), "a test", Duration::from_millis(1)).await.unwrap();
    local
        .start(&lease.fence, &instance("web-1", "web", shell(&local, "sleep 1000").await))
        .await
        .unwrap();
    let first = supervisor(&bed.folder()).unwrap();
    let running = pid(&local.inspect(&app()).await.unwrap(), "web-1");
    local.close().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(alive(first) && alive(running), "it hosts something");
    let local = bed.open().await;
    local.stop(&lease.fence, "web-1").await.unwrap();
    local.close().await;
    eventually("it has ended", async || !alive(first)).await;
    let local = bed.open().await;
    let seen = local.inspect(&app()).await.unwrap();
    assert_eq!(seen.instances.len(), 1, "what has ended is kept until it is removed");
    clean(&bed, local).await;
}

async fn one_supervisor() {
    let bed = Bed::new(Lifetime::Detached);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let local = bed.open().await;
        clients.push(tokio::spawn(async move {
            local.inspect(&app()).await.unwrap();
            local
        }));
    }
    let mut open = Vec::new();
    for client in clients {
        open.push(client.await.unwrap());
    }
    let first = supervisor(&bed.folder()).unwrap();
    for local in &open {
        local.inspect(&app()).await.unwrap();
    }
    assert_eq!(supervisor(&bed.folder()), Some(first));
    let last = open.pop().unwrap();
    drop(open);
    clean(&bed, last).await;
}

async fn stale_and_damaged() {
    let bed = Bed::new(Lifetime::Detached);
    let local = bed.open().await;
    drop(std::os::unix::net::UnixListener::bind(bed.folder().join("supervisor.sock")).unwrap());
    let lease = local.acquire(&app(), "a test", Duration::from_millis(1)).await.unwrap();
    local
        .state()
        .put(&lease.fence, "revision", "1", deploykit_core::Expected::Absent)
        .await
        .unwrap();
    local.close().await;
    eventually("the supervisor has ended", async || supervisor(&bed.folder()).is_none()).await;

    let path = bed.folder().join("state.db");
    let whole = std::fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[4096..8192].fill(0xa5);
    std::fs::write(&path, &damaged).unwrap();
    let _ = std::fs::remove_file(bed.folder().join("state.db-wal"));
    let local = bed.open().await;
    let error = local.inspect(&app()).await.unwrap_err();
    assert_eq!(error.kind(), deploykit_core::ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains("was left as it is"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), damaged);
    eventually("the one that refused has ended", async || supervisor(&bed.folder()).is_none())
        .await;

    std::fs::write(&path, &whole).unwrap();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = local.inspect(&app()).await.unwrap_err();
    assert!(
        error.message().contains("written by a newer version of DeployKit (layout 99"),
        "{error}"
    );
}

async fn other_protocol() {
    let bed = Bed::new(Lifetime::Detached);
    let local = bed.open().await;
    let listener =
        std::os::unix::net::UnixListener::bind(bed.folder().join("supervisor.sock")).unwrap();
    let other = std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        let (mut stream, _) = listener.accept().unwrap();
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut hello = vec![0; u32::from_be_bytes(length) as usize];
        stream.read_exact(&mut hello).unwrap();
        let welcome = br#"{"protocol":7,"program":"deploykit 9.0.0","pid":4711,"more":true}"#;
        stream.write_all(&u32::try_from(welcome.len()).unwrap().to_be_bytes()).unwrap();
        stream.write_all(welcome).unwrap();
    });
    let error = local.inspect(&app()).await.unwrap_err();
    other.join().unwrap();
    assert_eq!(error.kind(), deploykit_core::ErrorKind::Unsupported);
    assert_eq!(
        error.message(),
        "the folder's supervisor is deploykit 9.0.0 with protocol 7, and this program is deploykit 0.1.0 with protocol 2: \
         use that version, or end it with `kill 4711` and run this again (its instances go on and are adopted)"
    );
}
