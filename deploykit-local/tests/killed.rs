//! The supervisor killed by SIGKILL at seeded moments of a change: the next run converges, with no
//! orphan, no duplicate and no lost revision, and what need not change keeps its processes.
//!
//! `SEED=N` replays one seed, `DEPLOYKIT_SEEDS=N` tries N of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::*;
use deploykit_core::model::{App, ImageSpec, Port, Probe, Service};
use deploykit_core::{Change, Deployer, Outcome, Silent};
use deploykit_local::Lifetime;
use libtest_mimic::{Arguments, Trial};

/// How many seeds are tried where nothing else is said.
const SEEDS: u64 = 20;
/// The supervisor is killed within this time after the change has begun.
const WINDOW: Duration = Duration::from_millis(150);

fn main() {
    deploykit_local::init();
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse::<u64>().expect(name));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("DEPLOYKIT_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let trial = |seed| {
        Trial::test(format!("seed_{seed:04}_converges"), move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(converges(seed));
            Ok(())
        })
    };
    libtest_mimic::run(&Arguments::from_args(), seeds.map(trial).collect()).exit();
}

fn blog(version: &str, replicas: u32) -> App {
    let service = |name: &str, version: &str| {
        Service::build(name, ImageSpec::binary("/bin/sleep"))
            .arg("1000")
            .env("VERSION", version)
            .port(Port::tcp(8080))
            .readiness(Probe::exec(["/bin/true"]))
    };
    let web = service("web", version).replicas(replicas);
    App::build("blog").service(web).service(service("store", "1")).validate().unwrap()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Scene {
    First,
    Update,
    Scale,
    Rollback,
    Remove,
}

const SCENES: [Scene; 5] =
    [Scene::First, Scene::Update, Scene::Scale, Scene::Rollback, Scene::Remove];

async fn change(deployer: &Deployer, scene: Scene) -> Change {
    let deploy = async |app| Change::Deploy(Box::new(deployer.prepare(app).await.unwrap()));
    match scene {
        Scene::First => deploy(blog("1", 2)).await,
        Scene::Update => deploy(blog("2", 2)).await,
        Scene::Scale => Change::Scale { app: app(), service: service("web"), replicas: 4 },
        Scene::Rollback => Change::Rollback { app: app(), to: Some(1) },
        Scene::Remove => Change::Remove { app: app(), volumes: true },
    }
}

async fn apply(deployer: &Deployer, change: Change) -> deploykit_core::Result<()> {
    let plan = deployer.plan(change).await?;
    deployer.apply(plan, &mut Silent).await.map(drop)
}

async fn converges(seed: u64) {
    let scene = SCENES[usize::try_from(seed).unwrap() % SCENES.len()];
    let bed = Bed::new(Lifetime::Detached);
    let backend = Arc::new(deploykit_local::open(bed.config()).await.unwrap());
    let deployer = Deployer::new(backend).with_lock_wait(LONG);
    let before: &[Scene] = match scene {
        Scene::First => &[],
        Scene::Rollback => &[Scene::First, Scene::Update],
        _ => &[Scene::First],
    };
    for scene in before {
        apply(&deployer, change(&deployer, *scene).await).await.unwrap();
    }
    let seen = deployer.status(&app()).await.unwrap();
    let store = seen.observation.of(&service("store")).next().map(|i| i.host.clone());

    let wanted = change(&deployer, scene).await;
    let first = supervisor(&bed.folder());
    let folder = bed.folder();
    let moment = WINDOW.mul_f64(fastrand::Rng::with_seed(seed).f64());
    let killer = tokio::spawn(async move {
        tokio::time::sleep(moment).await;
        if let Some(pid) = supervisor(&folder) {
            // It may just have ended by itself.
            let _ = std::process::Command::new("kill").args(["-KILL", &pid.to_string()]).output();
        }
    });
    let struck = apply(&deployer, wanted).await;
    killer.await.unwrap();
    let context = format!("SEED={seed}: {scene:?} after {moment:?}, struck: {struck:?}");
    let deadline = Instant::now() + LONG;
    while let Err(error) = apply(&deployer, change(&deployer, scene).await).await {
        assert!(Instant::now() < deadline, "{context}: {error}");
        // A change that starts from what the app is now is refused while that is half changed:
        // then the way out is to go back first.
        if scene == Scene::Scale {
            apply(&deployer, change(&deployer, Scene::Rollback).await).await.unwrap();
        }
    }
    let after = deployer.status(&app()).await.unwrap();
    if scene == Scene::Remove {
        assert!(after.observation.is_empty() && after.revision.is_none(), "{context}: {after:#?}");
    } else {
        settled(&deployer, scene, &context).await;
        let kept = after.observation.of(&service("store")).next().map(|i| i.host.clone());
        assert!(store.is_none() || store == kept, "{context}: {store:?} is now {kept:?}");
        apply(&deployer, change(&deployer, Scene::Remove).await).await.unwrap();
    }
    drop(deployer);
    let gone = async || supervisor(&bed.folder()).is_none() && !bed.folder().exists();
    eventually(&format!("nothing is left, {context}, {first:?}"), gone).await;
}

async fn settled(deployer: &Deployer, scene: Scene, context: &str) {
    let after = deployer.status(&app()).await.unwrap();
    let replicas = if scene == Scene::Scale { 4 } else { 2 };
    let name = service("web");
    let web: Vec<_> = after.observation.of(&name).collect();
    assert_eq!(web.len(), replicas, "{context}: {after:#?}");
    assert_eq!(after.observation.instances.len(), replicas + 1, "{context}");
    assert!(after.observation.instances.iter().all(|i| i.ready), "{context}: {after:#?}");
    let hashes: BTreeSet<_> = web.iter().map(|i| &i.hash).collect();
    assert_eq!(hashes.len(), 1, "{context}: one revision runs");
    // Exactly the processes that are told of carry the folder's marker.
    let pids = after.observation.instances.iter().map(|i| pid(&after.observation, &i.id));
    let pids: BTreeSet<u32> = pids.collect();
    let marker = folder_id(*pids.first().unwrap());
    let marked: BTreeSet<u32> = marked(&marker)
        .into_iter()
        .filter(|pid| {
            // Probes come and go.
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|c| c.starts_with(b"sleep"))
        })
        .collect();
    assert_eq!(marked, pids, "{context}: no orphan and no duplicate");
    let history = deployer.history(&app()).await.unwrap();
    let mut numbers: Vec<u64> = history.iter().map(|r| r.number).collect();
    numbers.sort_unstable();
    let all: Vec<u64> = (1..=u64::try_from(numbers.len()).unwrap()).collect();
    assert_eq!(numbers, all, "{context}: no revision is lost");
    assert_eq!(after.revision.map(|r| r.outcome), Some(Outcome::Succeeded), "{context}");
}
