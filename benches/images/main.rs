//! Images against what there is besides: `cargo bench -p deploykit-benches --bench images`.
//!
//! One line `RATIO name value <=|>= goal` for each figure, each against a baseline of the same
//! run; the other lines say what is behind it. A missed goal is no failure, a missing peer is.

mod data;
mod floor;
mod peers;
mod registry;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;

use deploykit_benches::{Goal, Result, median, ratio};
use peers::Peers;
use registry::Registry;

/// How often a figure is taken; its median counts.
const ROUNDS: usize = 3;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("images: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A build and push of ours: seconds, and MiB at most.
fn push(source: &Path, store: &Path, name: &str, compression: &str) -> Result<(f64, f64)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-images"));
    command.arg("push").arg(source).arg(store).args([name, compression]);
    let started = Instant::now();
    let output = peers::output(&mut command)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((seconds, output.trim().parse::<f64>()? / 1024.0))
}

fn run() -> Result<()> {
    let peers = Peers::find()?;
    let work = tempfile::tempdir()?;
    let source = work.path().join("source");
    data::write(&source)?;
    let mut peak = Vec::new();
    for compression in ["zstd", "gzip"] {
        let (mut ours, mut floors, mut others) = (Vec::new(), Vec::new(), Vec::new());
        let mut size = (0, 0);
        for round in 0..ROUNDS {
            let folder = tempfile::tempdir_in(work.path())?;
            let registry = Registry::start()?;
            let name = registry.name("ours");
            let (seconds, mib) = push(&source, &folder.path().join("store"), &name, compression)?;
            ours.push(seconds);
            peak.push(mib);
            size.0 = registry.size("ours")?;
            drop(registry);

            let registry = Registry::start()?;
            floors.push(floor::run(&source, compression, &registry.host)?);
            drop(registry);

            let peer = peers.best(&source, folder.path())?;
            size.1 = peer.size;
            println!(
                "# round {round}: {compression} ours {seconds:.2} s, {} MB, {mib:.0} MiB of memory; \
                 floor {:.2} s; best peer {} {:.2} s, {} MB",
                size.0 / 1_000_000,
                floors.last().copied().unwrap_or_default(),
                peer.name,
                peer.seconds,
                size.1 / 1_000_000,
            );
            others.push(peer.seconds);
        }
        let (ours, floor, peer) = (median(ours), median(floors), median(others));
        ratio(&format!("cold_{compression}_over_floor"), ours / floor, Goal::AtMost(1.2));
        let goal = if compression == "zstd" { 0.6 } else { 1.1 };
        ratio(&format!("cold_{compression}_over_peer"), ours / peer, Goal::AtMost(goal));
        if compression == "gzip" {
            let larger = size.0 as f64 / size.1 as f64;
            ratio("cold_gzip_size_over_peer", larger, Goal::AtMost(1.05));
        }
    }
    ratio("images_peak_rss_mib", peak.into_iter().fold(0.0, f64::max), Goal::AtMost(96.0));
    changes(&peers, &source, work.path())?;
    unpacking(&peers, &source, work.path())
}

fn changes(peers: &Peers, source: &Path, work: &Path) -> Result<()> {
    let registry = Registry::start()?;
    let folder = tempfile::tempdir_in(work)?;
    let store = folder.path().join("store");
    let name = registry.name("ours");
    push(source, &store, &name, "zstd")?;
    let (mut same, mut changed, mut crane) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        same.push(push(source, &store, &name, "zstd")?.0 * 1000.0);
        data::change(source, round)?;
        changed.push(push(source, &store, &name, "zstd")?.0);
        crane.push(peers.crane(source, folder.path(), &registry.name("crane"))?);
        // What has just been written is not trusted yet by the next build.
        std::thread::sleep(std::time::Duration::from_millis(200));
        push(source, &store, &name, "zstd")?;
    }
    let (changed, crane) = (median(changed), median(crane));
    println!("# one file of 5000 changed: ours {changed:.3} s (aim: 0.3 s), crane {crane:.2} s");
    ratio("one_file_change", changed / crane, Goal::AtMost(0.06));
    ratio("no_change_ms", median(same), Goal::AtMost(30.0));
    Ok(())
}

fn unpacking(peers: &Peers, source: &Path, work: &Path) -> Result<()> {
    let registry = Registry::start()?;
    let folder = tempfile::tempdir_in(work)?;
    let name = registry.name("ours");
    push(source, &folder.path().join("store"), &name, "gzip")?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let out = tempfile::tempdir_in(work)?;
        let mut command = Command::new(env!("CARGO_BIN_EXE_bench-images"));
        command.args(["pull", &name]);
        command.arg(out.path().join("store")).arg(out.path().join("root"));
        let started = Instant::now();
        peers::output(&mut command)?;
        ours.push(started.elapsed().as_secs_f64());
        theirs.push(peers.unpack(&name, out.path())?);
    }
    let (ours, theirs) = (median(ours), median(theirs));
    println!("# pull and unpack: ours {ours:.2} s, skopeo and umoci {theirs:.2} s");
    ratio("pull_unpack", ours / theirs, Goal::AtMost(0.7));
    Ok(())
}
