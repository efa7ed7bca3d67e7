//! Deployers that fail or die at any call: whoever comes next converges.

use std::sync::Arc;
use std::time::Duration;

use deploykit_core::memory::dial;
use deploykit_core::model::{App, Condition, SecretName};
use deploykit_core::{Change, Outcome, SecretValue};

use super::Behaviour;
use crate::deployer::{End, Order};
use crate::faults::{Death, Fault};
use crate::kit::left_of;
use crate::test::{Test, name};

/// How many seeds are tried where nothing else is said.
const SEEDS: u64 = 10;

/// A test for each seed: `SEED` alone, or as many as `DEPLOYKIT_SEEDS` says.
pub(super) fn all() -> Vec<Behaviour> {
    let number = |name: &str| std::env::var(name).ok().map(|v| v.parse().expect(name));
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("DEPLOYKIT_SEEDS").unwrap_or(SEEDS) + 1,
    };
    let behaviour = |seed| Behaviour {
        name: format!("faults::seed_{seed:04}_converges"),
        run: Box::new(move |t| Box::pin(async move { converges(t, seed).await })),
    };
    seeds.map(behaviour).collect()
}

/// What is done when the fault strikes.
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

fn app(t: &Test, version: &str) -> App {
    let front = t
        .service("front", version)
        .replicas(2)
        .depends_on("back", Condition::Healthy)
        .config("title");
    let back = t.service("back", version).volume("data").secret("db");
    let job = t.job("setup").volume("data").env(dial::RUNS, "data");
    let build = t.build().volume("data", Default::default()).config("title", version);
    let build = build.service(front).service(back.depends_on("setup", Condition::Completed));
    build.job(job).validate().unwrap()
}

/// Brings the app to where the scene begins, and returns the change of the scene.
async fn stage(t: &Test, scene: Scene) -> Order {
    let db = SecretName::new("db").unwrap();
    t.deployer().secrets(t.name()).ensure(&db, SecretValue::new("value")).await.unwrap();
    if scene != Scene::First {
        t.up(app(t, "1")).await.unwrap();
    }
    if scene == Scene::Rollback {
        t.up(app(t, "2")).await.unwrap();
    }
    match scene {
        Scene::First => Order::Deploy(Box::new(app(t, "1"))),
        Scene::Update => Order::Deploy(Box::new(app(t, "2"))),
        Scene::Scale => Order::Scale(name("front"), 4),
        Scene::Rollback => Order::Rollback(1),
        Scene::Remove => Order::Remove,
    }
}

/// What is there when all is well.
async fn settled(t: &Test, scene: Scene, context: &str) {
    if scene == Scene::Remove {
        let left = left_of(t).await.unwrap();
        assert!(left.is_empty(), "{context}: left are {left:?}");
        return;
    }
    let version = if scene == Scene::Update { "2" } else { "1" };
    let seen = t.seen().await;
    let current = t.history().await.pop().unwrap();
    assert_eq!(current.outcome, Outcome::Succeeded, "{context}: {current:#?}");
    let fronts = if scene == Scene::Scale { 4 } else { 2 };
    for (service, wanted) in [("front", fronts), ("back", 1)] {
        let template = current.app.template(&name(service)).unwrap();
        let name = name(service);
        let all: Vec<_> = seen.of(&name).collect();
        assert_eq!(all.len(), wanted, "{context}: orphans or duplicates: {all:#?}");
        let good = all.iter().all(|i| i.ready && i.hash.matches(&template));
        assert!(good, "{context}: {all:#?}");
        let routed = &seen.endpoints[service].routed;
        let ids: Vec<_> = all.iter().map(|i| &i.id).collect();
        assert!(routed.len() == wanted && ids.iter().all(|id| routed.contains(*id)), "{context}");
        assert_eq!(t.version(service).await, version, "{context}");
    }
    let runs = t.file("back", "VOLUMES_DIR", "data/runs").await.body;
    assert_eq!(runs.lines().count(), 1, "{context}: the job ran {runs:?}");
    let others =
        seen.instances.iter().filter(|i| !["front", "back", "setup"].contains(&i.service.as_str()));
    assert_eq!(others.count(), 0, "{context}");

    let history = t.history().await;
    let numbers: Vec<u64> = history.iter().map(|r| r.number).collect();
    assert_eq!(
        numbers,
        (1..=history.len() as u64).collect::<Vec<_>>(),
        "{context}: lost revisions"
    );
    let open = history.iter().filter(|r| r.outcome == Outcome::Applying).count();
    assert_eq!(open, 0, "{context}: {history:#?}");
    if scene != Scene::Scale {
        let plan = t.plan(app(t, version)).await.unwrap();
        assert!(plan.is_empty(), "{context}: {plan}");
    }
}

async fn converges(t: Arc<Test>, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let scene = SCENES[random.usize(..SCENES.len())];
    let mut faults = Fault::OF_DEPLOYERS.to_vec();
    faults.extend(t.settings.kill_host.is_some().then_some(Fault::HostDies));
    let fault = faults[random.usize(..faults.len())];

    // How many calls the change makes is found out by making it once.
    let order = stage(&t, scene).await;
    t.bed.faults().arm(u64::MAX, Fault::ErrorBefore, Death::Silence);
    order.carry_out(&t).await.unwrap();
    let calls = t.bed.faults().calls();
    settled(&t, scene, "without a fault").await;
    t.change(Change::Remove { app: t.name().clone(), volumes: true }).await.unwrap();

    // Never the last one, which gives the lock back: the number of calls varies a little with
    // what happens at the same time, and the fault has to strike.
    let call = random.u64(1..calls.max(3) - 1);
    let context = format!("SEED={seed}: {scene:?}, {fault:?} at call {call} of {calls}");
    eprintln!("{context}");
    let order = stage(&t, scene).await;
    let end = order.carry_out_with(&t, call, fault).await;
    match (&end, fault.is_deadly()) {
        (End::Killed, true) | (End::Failed(_), false) => {}
        _ => panic!("{context}: the fault did not strike: {end:?}"),
    }

    let next = t.another().await;
    again(&next, &order, &context).await;
    settled(&next, scene, &context).await;
}

/// Makes the change again, as the next deployer would.
async fn again(t: &Test, order: &Order, context: &str) {
    let deployer = t.deployer().clone().with_lock_wait(Duration::from_secs(60));
    let app = t.name().clone();
    let change = match order {
        Order::Deploy(app) => {
            let ready = deployer.prepare((**app).clone()).await;
            Change::Deploy(Box::new(ready.unwrap_or_else(|e| panic!("{context}: {e}"))))
        }
        // A change that starts from what the app is now is refused while that is half changed:
        // then the way out is to go back first.
        Order::Scale(service, replicas) => {
            let scale = || {
                let (app, service) = (app.clone(), service.clone());
                Change::Scale { app, service, replicas: *replicas }
            };
            if deployer.plan(scale()).await.is_err() {
                let back = deployer.plan(Change::Rollback { app: app.clone(), to: Some(1) }).await;
                let back = back.unwrap_or_else(|e| panic!("{context}: {e}"));
                let back = apply_patiently(&deployer, back).await;
                back.unwrap_or_else(|e| panic!("{context}: {e}"));
            }
            scale()
        }
        Order::Rollback(to) => Change::Rollback { app, to: Some(*to) },
        Order::Remove => Change::Remove { app, volumes: true },
    };
    let plan = deployer.plan(change).await.unwrap_or_else(|e| panic!("{context}: {e}"));
    let done = apply_patiently(&deployer, plan).await;
    done.unwrap_or_else(|e| panic!("{context}: {e}"));
}

async fn apply_patiently(
    deployer: &deploykit_core::Deployer,
    plan: deploykit_core::Plan,
) -> deploykit_core::Result<()> {
    deployer.apply(plan, &mut deploykit_core::Silent).await.map(drop)
}
