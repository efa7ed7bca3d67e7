//! Deployers whose clocks are wrong.

use std::process::Command;
use std::time::{Duration, Instant};

use deploykit_core::model::AppName;
use deploykit_core::{ErrorKind, Orchestrator};
use deploykit_k8s::K8s;

use super::{Bed, config};

/// The word that makes this program take the lock of an app.
pub(crate) const TAKE: &str = "take";
/// How long it takes it for.
const TTL: Duration = Duration::from_secs(4);

/// Takes the lock of an app, and ends without giving it back.
pub(crate) fn take() {
    let app = AppName::new(std::env::args().nth(2).unwrap()).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let taken = runtime.block_on(async {
        let cluster = K8s::open(config()).await.unwrap();
        cluster.state().acquire(&app, "another", TTL).await
    });
    match taken {
        Ok(_) => println!("taken"),
        Err(error) => println!("{error}"),
    }
}

/// What [`take`] says where the clock is an hour off.
fn taken_by(app: &AppName, hour: &str) -> String {
    let library = std::fs::read_dir("/usr/lib").unwrap().find_map(|folder| {
        let library = folder.unwrap().path().join("faketime/libfaketime.so.1");
        library.exists().then_some(library)
    });
    let output = Command::new(std::env::current_exe().unwrap())
        .args([TAKE, app.as_str()])
        .env("LD_PRELOAD", library.expect("libfaketime is installed by testbed/run"))
        .env("FAKETIME", hour)
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr)
}

pub(crate) async fn a_lock_is_right_though_a_clock_is_an_hour_off() {
    let bed = Bed::new().await;
    let state = bed.deployer.backend().state();
    for hour in ["+1h", "-50m"] {
        let lease = state.acquire(&bed.app, "this one", Duration::from_secs(30)).await.unwrap();
        let said = taken_by(&bed.app, hour);
        assert!(said.contains("this one is at work on the app"), "{hour}: {said}");
        state.renew(&lease, Duration::from_secs(30)).await.unwrap();
        state.release(&lease).await.unwrap();

        let begun = Instant::now();
        let said = taken_by(&bed.app, hour);
        assert_eq!(said.trim(), "taken", "{hour}");
        // It is over when it is by the cluster's clock, and not before.
        let refused = state.acquire(&bed.app, "this one", TTL).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Conflict, "{hour}: {refused}");
        let lease = loop {
            match state.acquire(&bed.app, "this one", TTL).await {
                Ok(lease) => break lease,
                Err(error) if begun.elapsed() < TTL * 10 => {
                    assert_eq!(error.kind(), ErrorKind::Conflict, "{hour}: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                Err(error) => panic!("{hour}: {error}"),
            }
        };
        state.release(&lease).await.unwrap();
    }
}
