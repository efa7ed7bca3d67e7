//! An API server that is killed in the middle of an apply, and started again: that of the cluster
//! which `testbed/run` has started.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::*;
use deploykit_core::{Change, Event, Progress};

use super::{Bed, web};

const REPLICAS: usize = 2;
/// After how many events of an apply it is killed.
const MOMENTS: [usize; 3] = [1, 6, 12];

/// Kills the API server at one moment of an apply, and has it started again.
struct Kill {
    events: usize,
    started: Option<JoinHandle<ExitStatus>>,
}

fn testbed() -> PathBuf {
    std::env::var("DEPLOYKIT_TESTBED").expect("`testbed/run` has started the cluster").into()
}

impl Progress for Kill {
    fn event(&mut self, _: &Event) {
        self.events = self.events.saturating_sub(1);
        if self.events > 0 || self.started.is_some() {
            return;
        }
        let pid = std::fs::read_to_string(testbed().join("kubernetes/apiserver.pid")).unwrap();
        assert!(Command::new("kill").args(["-KILL", pid.trim()]).status().unwrap().success());
        self.started = Some(std::thread::spawn(|| {
            let up = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/up");
            Command::new(up).arg("kubernetes").stdout(Stdio::null()).status().unwrap()
        }));
    }
}

/// Alone: nothing else can be done on the cluster meanwhile.
pub(crate) async fn an_api_server_is_killed_and_started_again_in_the_middle_of_an_apply() {
    let bed = Bed::new().await;
    let app = |version: usize| {
        let update = Update::rolling().progress_deadline(Duration::from_secs(120));
        let web = web().replicas(REPLICAS as u32).env(dial::VERSION, version.to_string());
        bed.only(web.update(update))
    };
    bed.up(app(0)).await.unwrap();
    for (n, events) in MOMENTS.into_iter().enumerate() {
        let version = n + 1;
        let ready = bed.deployer.prepare(app(version)).await.unwrap();
        let plan = bed.deployer.plan(Change::Deploy(Box::new(ready))).await.unwrap();
        let mut kill = Kill { events, started: None };
        let applied = bed.deployer.apply(plan, &mut kill).await;
        let up = kill.started.expect("the apply has that many events").join().unwrap();
        assert!(up.success());
        println!("killed at event {events}: {applied:?}");
        // Where it could not go on by itself, the next one does.
        bed.up(app(version)).await.unwrap();
        assert!(bed.plan(app(version)).await.is_empty());
        let seen = bed.deployer.status(&bed.app).await.unwrap();
        assert_eq!(seen.observation.instances.len(), REPLICAS, "{:?}", seen.observation);
        assert!(seen.observation.instances.iter().all(|instance| instance.ready), "{seen:?}");
    }
    bed.down().await;
}
