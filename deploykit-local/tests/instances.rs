//! Instances from start to end, under a supervisor within the test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use deploykit_core::model::*;
use deploykit_core::{ErrorKind, Exit, InstanceState, Reason, Runtime as _, StateStore as _};
use deploykit_local::Lifetime;

#[tokio::test]
async fn an_instance_runs_is_left_alone_and_ends_with_all_that_it_started() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let template = shell(&local, "sleep 1000 & setsid sleep 1000 & echo up; wait").await;
    let spec = instance("web-1", "web", template);
    local.start(&fence, &spec).await.unwrap();
    let seen = until(&local, "it is ready", |s| s.instance("web-1").is_some_and(|i| i.ready)).await;
    let first = pid(&seen, "web-1");
    let folder_id = folder_id(first);
    eventually("it has started all", async || marked(&folder_id).len() == 3).await;
    local.start(&fence, &spec).await.unwrap();
    let again = local.inspect(&app()).await.unwrap();
    assert_eq!((again.instances.len(), pid(&again, "web-1")), (1, first));
    assert_eq!(again.instances[0].state, InstanceState::Running);
    assert_eq!(
        local.remove(&fence, "web-1").await.unwrap_err().kind(),
        ErrorKind::Conflict,
        "it runs"
    );

    local.stop(&fence, "web-1").await.unwrap();
    local.stop(&fence, "web-1").await.unwrap();
    assert!(!alive(first));
    let ended = local.inspect(&app()).await.unwrap();
    assert_eq!(ended.instances[0].exit(), Some(Exit::Signal(15)));
    assert_eq!(marked(&folder_id), [0; 0], "nothing that it started is left");
    local.remove(&fence, "web-1").await.unwrap();
    local.remove(&fence, "web-1").await.unwrap();
    assert!(local.inspect(&app()).await.unwrap().is_empty());
    local.close().await;
    assert!(!bed.folder().exists(), "nothing is left");
}

#[tokio::test]
async fn a_crash_is_started_again_as_the_policy_says_with_its_evidence() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let crash = shell(&local, "echo started; echo why >&2; exit 3").await;
    let never = deploykit_core::Template { restart: RestartPolicy::Never, ..crash.clone() };
    let mut well = shell(&local, "exit 0").await;
    well.restart = RestartPolicy::OnFailure;
    local.start(&fence, &instance("crash-1", "crash", crash)).await.unwrap();
    local.start(&fence, &instance("never-1", "never", never)).await.unwrap();
    local.start(&fence, &instance("well-1", "well", well)).await.unwrap();
    let waits = |s: &deploykit_core::Observation| {
        s.instance("crash-1").is_some_and(|i| i.restarts >= 2 && i.state == InstanceState::BackOff)
    };
    let seen = until(&local, "two restarts", waits).await;
    let exit = |seen: &deploykit_core::Observation, id| seen.instance(id).unwrap().exit();
    assert_eq!(exit(&seen, "never-1"), Some(Exit::Code(3)));
    assert_eq!(exit(&seen, "well-1"), Some(Exit::Code(0)));
    match &seen.instance("crash-1").unwrap().trouble {
        Some(Reason::CrashLoop { exit, log, .. }) => {
            assert_eq!(exit, "exit code 3");
            assert!(
                log.contains(&"started".into()) && log.last() == Some(&"why".into()),
                "{log:?}"
            );
        }
        other => panic!("{other:?}"),
    }
    local.stop(&fence, "crash-1").await.unwrap();
    let stopped = local.inspect(&app()).await.unwrap();
    assert!(exit(&stopped, "crash-1").is_some(), "it is not started again");
    local.close().await;
}

#[tokio::test]
async fn a_job_runs_once_and_its_end_is_kept() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let count = bed.temporary.path().join("count");
    let script = format!("echo ran >> {}; exit 4", count.display());
    let mut spec = instance("migrate-1", "migrate", shell(&local, &script).await);
    spec.job = true;
    local.start(&fence, &spec).await.unwrap();
    let ended = |s: &deploykit_core::Observation| {
        s.instance("migrate-1").is_some_and(|i| i.exit().is_some())
    };
    let seen = until(&local, "it has ended", ended).await;
    assert_eq!(seen.instances[0].exit(), Some(Exit::Code(4)));
    assert!(
        matches!(&seen.instances[0].trouble, Some(Reason::JobFailed { exit, .. }) if exit == "exit code 4")
    );
    local.start(&fence, &spec).await.unwrap();
    local.close().await;
    let local = bed.open().await;
    let seen = local.inspect(&app()).await.unwrap();
    assert_eq!(seen.instances[0].exit(), Some(Exit::Code(4)));
    assert_eq!(std::fs::read_to_string(count).unwrap(), "ran\n");
    local.close().await;
}

#[tokio::test]
async fn what_cannot_run_says_why_and_leaves_nothing() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    let mut workdir = shell(&local, "true").await;
    workdir.workdir = Some("/nowhere/at/all".into());
    let mut image = shell(&local, "true").await;
    image.image.digest = "sha256:0000".into();
    let mut secret = shell(&local, "true").await;
    secret.secrets.insert(SecretName::new("db").unwrap(), 3);
    let mut peer = shell(&local, "true").await;
    peer.peers.insert(service("users"), 8080);
    let cases = [
        (
            workdir,
            ErrorKind::Failed,
            "could not be started: its working folder /nowhere/at/all does not exist",
        ),
        (image, ErrorKind::NotFound, "image not found: /bin/sh@0000"),
        (secret, ErrorKind::NotFound, "secret db@3 does not exist"),
        (
            peer,
            ErrorKind::Failed,
            "could not be started: start an instance: the service users has no address for its port 8080 yet (backend local)",
        ),
    ];
    for (template, kind, reason) in cases {
        let error = local.start(&fence, &instance("web-1", "web", template)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert_eq!(error.diagnoses()[0].reason.to_string(), reason);
        assert!(local.inspect(&app()).await.unwrap().is_empty());
    }
    let mut odd = instance("web-1", "web", shell(&local, "true").await);
    odd.id = "../etc".into();
    assert_eq!(local.start(&fence, &odd).await.unwrap_err().kind(), ErrorKind::Invalid);
    local.close().await;
}

#[tokio::test]
async fn a_late_deployer_changes_nothing() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let old = local.acquire(&app(), "first", Duration::from_millis(1)).await.unwrap();
    local
        .start(&old.fence, &instance("web-1", "web", shell(&local, "sleep 1000").await))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await;
    let new = local.acquire(&app(), "second", Duration::from_secs(30)).await.unwrap();
    let held = local.acquire(&app(), "third", Duration::from_secs(30)).await.unwrap_err();
    assert!(held.context().contains(&("holder".to_owned(), "second".to_owned())), "{held}");
    let before = local.inspect(&app()).await.unwrap();
    let (fence, name) = (&old.fence, VolumeName::new("data").unwrap());
    let endpoint = deploykit_core::EndpointSpec::new(service("web"), vec![Port::tcp(80)]);
    let late = [
        local.start(fence, &instance("web-2", "web", shell(&local, "sleep 1000").await)).await,
        local.stop(fence, "web-1").await,
        local.remove(fence, "web-1").await,
        local.route(fence, &service("web"), &["web-1".into()]).await,
        local.ensure_endpoint(fence, &endpoint).await,
        local.remove_endpoint(fence, &service("web")).await,
        local.ensure_volume(fence, &name, &Volume::default()).await,
        local.remove_volume(fence, &name).await,
        local.drain(fence, &service("web"), "web-1", Duration::ZERO).await.map(drop),
        local.collect(fence, &[]).await,
        local.put(fence, "key", "value", deploykit_core::Expected::Absent).await.map(drop),
        local.delete(fence, "key", 1).await,
        local.renew(&old, Duration::from_secs(30)).await,
    ];
    for (index, result) in late.into_iter().enumerate() {
        // An instance that runs cannot be removed by anybody.
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Conflict, "call {index}");
    }
    assert_eq!(local.inspect(&app()).await.unwrap(), before);
    local.stop(&new.fence, "web-1").await.unwrap();
    local.close().await;
}

#[tokio::test]
async fn closing_ends_what_runs_and_opening_starts_it_again() {
    let bed = Bed::new(Lifetime::Program);
    let local = bed.open().await;
    let fence = lease(&local).await.fence;
    local
        .start(&fence, &instance("web-1", "web", shell(&local, "sleep 1000").await))
        .await
        .unwrap();
    let first = pid(&local.inspect(&app()).await.unwrap(), "web-1");
    local.close().await;
    assert!(!alive(first));
    let local = bed.open().await;
    let seen =
        until(&local, "it runs again", |s| s.instance("web-1").is_some_and(|i| i.ready)).await;
    assert_ne!(pid(&seen, "web-1"), first);
    assert_eq!(seen.instances[0].restarts, 0);
    let other = deploykit_local::Local::open(bed.config()).await.unwrap_err();
    assert_eq!(
        other.message(),
        "another supervisor serves the folder; end it, or choose another folder"
    );
    drop(local);
    assert!(!alive(pid(&seen, "web-1")), "dropping ends it too");
}
