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
    let mut peers = Peers::find()?;
    let work = tempfile::tempdir()?;
    let source = work.path().join("source");
    data::write(&source)?;
    let mut peak = Vec::new();
    let mut best = Vec::new();
    let mut cold = COMPRESSIONS.map(|compression| Cold { compression, ..Cold::default() });
    for round in 0..ROUNDS {
        println!("# round {round}, load {}", load()?);
        for cold in &mut cold {
            peak.push(cold.take(&source, work.path())?);
        }
        best.push(peers.best(&source, work.path())?);
    }
    let peer = median(best.iter().map(|best| best.seconds));
    for Cold { compression, ours, floors, size } in cold {
        let (ours, floor) = (median(ours), median(floors));
        ratio(&format!("cold_{compression}_over_floor"), ours / floor, Goal::AtMost(1.2));
        let goal = if compression == "zstd" { 0.6 } else { 1.1 };
        ratio(&format!("cold_{compression}_over_peer"), ours / peer, Goal::AtMost(goal));
        if compression == "gzip" {
            let smallest = best.iter().map(|best| best.size).min().unwrap_or(1);
            let larger = size as f64 / smallest as f64;
            ratio("cold_gzip_size_over_peer", larger, Goal::AtMost(1.05));
        }
    }
    ratio("images_peak_rss_mib", peak.into_iter().fold(0.0, f64::max), Goal::AtMost(96.0));
    changes(&peers, &source, work.path())?;
    unpacking(&peers, &source, work.path())
}

const COMPRESSIONS: [&str; 2] = ["zstd", "gzip"];

/// Builds and pushes of everything, with nothing there before.
#[derive(Default)]
struct Cold {
    compression: &'static str,
    ours: Vec<f64>,
    floors: Vec<f64>,
    /// The bytes of our layers.
    size: u64,
}

impl Cold {
    /// One of ours and one of the floor, each to a registry of its own; MiB of ours at most.
    fn take(&mut self, source: &Path, work: &Path) -> Result<f64> {
        let compression = self.compression;
        let folder = tempfile::tempdir_in(work)?;
        let registry = Registry::start()?;
        let store = folder.path().join("store");
        let (ours, mib) = push(source, &store, &registry.name("ours"), compression)?;
        self.size = registry.size("ours")?;
        drop(registry);
        let registry = Registry::start()?;
        let floor = floor::run(source, compression, &registry.host)?;
        println!(
            "#   {compression}: ours {ours:.2} s, {} MB, {mib:.0} MiB of memory; floor {floor:.2} s",
            self.size / 1_000_000,
        );
        self.ours.push(ours);
        self.floors.push(floor);
        Ok(mib)
    }
}

/// How busy the machine is: what `uptime` says of the last minute.
fn load() -> Result<String> {
    let said = std::fs::read_to_string("/proc/loadavg")?;
    Ok(said.split_whitespace().next().unwrap_or_default().to_owned())
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
