//! Kubernetes as a backend against `helm`, `kubectl` and bare calls of the API server:
//! `cargo bench -p deploykit-benches --bench kubernetes`, as root.
//!
//! It starts a cluster and a registry of its own. One line `RATIO name value <=|>= goal` for each
//! figure, each against a baseline of the same run; the other lines say what is behind it. A missed
//! goal is no failure, a missing peer is. All apply the same objects: ours, as `deployctl render`
//! writes them.

mod cluster;
mod ours;
mod theirs;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use cluster::Cluster;
use deploykit_benches::{Goal, Result, compare, deployctl, peer};
use ours::Ours;
use theirs::{Helm, Kubectl, manifests};

/// How often a figure is taken; its median counts.
const ROUNDS: usize = 3;
/// How many services an app has.
const SERVICES: usize = 20;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kubernetes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    if std::env::var_os("DEPLOYKIT_TEST_KUBECONFIG").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run())?;
        return Ok(ExitCode::SUCCESS);
    }
    // What is measured is made ready while there is a network to get it from.
    let deployctl = deployctl(&["k8s"])?;
    let (helm, kubectl) = (peer("helm")?, peer("kubectl")?);
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/run");
    let mut again = Command::new(testbed);
    again.args(["--servers", "registry kubernetes"]).arg(std::env::current_exe()?);
    again.env("BENCH_DEPLOYCTL", deployctl).env("BENCH_HELM", helm).env("BENCH_KUBECTL", kubectl);
    Ok(if again.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What each round has measured, in seconds.
#[derive(Default)]
struct Rounds {
    first: Vec<(f64, f64)>,
    noop: Vec<(f64, f64)>,
    change: Vec<(f64, f64)>,
    ready: Vec<(f64, f64)>,
    bad: Vec<(f64, f64)>,
}

async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let cluster = Cluster::connect().await?;
    let ours = Ours::open(&cluster, folder.path()).await?;
    let helm = Helm::write(folder.path(), &ours)?;
    let kubectl = Kubectl::write(folder.path(), &ours)?;
    let raw = manifests(&ours.rendered(0)?)?;
    let mut rounds = Rounds::default();
    for round in 1..=ROUNDS {
        println!("# round {round}");
        // Each in a namespace of its own, one after the other.
        let namespace = cluster.namespace("ours").await?;
        let watch = cluster.watch(&namespace);
        let (up, first) = (ours.up(&namespace, 0), watch.all_there(SERVICES));
        let (ready, first) = tokio::try_join!(up, first)?;
        println!("#   deployctl: accepted {:.0} ms, ready {:.0} ms", first * 1e3, ready * 1e3);
        let noop = ours.up(&namespace, 0).await?;
        let watch = cluster.watch(&namespace);
        let (_, change) = tokio::try_join!(ours.up(&namespace, 1), watch.one_changed(SERVICES))?;
        println!("#   deployctl: no-op {:.0} ms, change {:.0} ms", noop * 1e3, change * 1e3);
        cluster.remove(&namespace).await?;

        let namespace = cluster.namespace("helm").await?;
        let helm_first = helm.upgrade(&namespace, 0, &[])?;
        cluster.watch(&namespace).all_ready(SERVICES).await?;
        let helm_noop = helm.upgrade(&namespace, 0, &[])?;
        let helm_waited = helm.upgrade(&namespace, 0, &["--wait"])?;
        let helm_change = helm.upgrade(&namespace, 1, &[])?;
        println!(
            "#   helm: accepted {:.0} ms, no-op {:.0} ms (with --wait {:.0} ms), change {:.0} ms",
            helm_first * 1e3,
            helm_noop * 1e3,
            helm_waited * 1e3,
            helm_change * 1e3
        );
        cluster.remove(&namespace).await?;

        let namespace = cluster.namespace("kubectl").await?;
        let kubectl_first = kubectl.apply(&namespace, 0)?;
        cluster.watch(&namespace).all_ready(SERVICES).await?;
        let kubectl_noop = kubectl.apply(&namespace, 0)?;
        let kubectl_change = kubectl.apply(&namespace, 1)?;
        println!(
            "#   kubectl: accepted {:.0} ms, no-op {:.0} ms, change {:.0} ms",
            kubectl_first * 1e3,
            kubectl_noop * 1e3,
            kubectl_change * 1e3
        );
        cluster.remove(&namespace).await?;
        rounds.first.push((first, helm_first));
        rounds.noop.push((noop, helm_noop.min(kubectl_noop)));
        rounds.change.push((change, helm_change.min(kubectl_change)));

        let namespace = cluster.namespace("raw").await?;
        let start = Instant::now();
        cluster.apply(&namespace, &raw).await?;
        println!("#   bare calls: accepted {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
        cluster.watch(&namespace).all_ready(SERVICES).await?;
        let bare = start.elapsed().as_secs_f64();
        cluster.remove(&namespace).await?;
        let namespace = cluster.namespace("ready").await?;
        let ready = ours.deploy(&namespace).await?;
        cluster.remove(&namespace).await?;
        rounds.ready.push((ready, bare));

        let namespace = cluster.namespace("bad").await?;
        let watch = cluster.watch(&namespace);
        let (told, seen) = tokio::try_join!(ours.bad_image(&namespace), watch.pull_failed())?;
        cluster.remove(&namespace).await?;
        rounds.bad.push((told, seen));
    }
    let Rounds { first, noop, change, ready, bad } = rounds;
    compare("k8s_first_apply_20", &first, "helm", Goal::AtMost(0.5));
    compare("k8s_noop_20", &noop, "the faster of helm and kubectl", Goal::AtMost(0.2));
    compare("k8s_change_one_of_20", &change, "the faster of helm and kubectl", Goal::AtMost(0.5));
    compare("k8s_ready_20", &ready, "bare calls and a watch", Goal::AtMost(1.1));
    compare("k8s_bad_image_to_diagnosis", &bad, "a bare watch", Goal::AtMost(1.2));
    Ok(())
}
