//! Fifty services: up, unchanged, one changed, and what the supervisor takes for it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use deploykit::model::{App, ImageSpec, Port, Probe, Service};
use deploykit::{Change, Silent};
use deploykit_benches::{Goal, ProcessGuard, Result, median, peer, ratio, resident_mib};
use tempfile::TempDir;

use crate::local::{Local, Phases};
use crate::{ROUNDS, bare};

const SERVICES: usize = 50;

pub(crate) async fn run() -> Result<()> {
    let local = up().await?;
    unchanged(&local).await?;
    change_one(&local).await?;
    memory(&local)?;
    local.remove("fifty").await
}

fn app(change: usize) -> Result<App> {
    let mut app = App::build("fifty");
    for n in 0..SERVICES {
        let mut service =
            Service::build(format!("service{n:02}"), ImageSpec::binary(bare::SERVICE))
                .port(Port::http(8080))
                .readiness(Probe::http("/healthz"));
        if n == SERVICES / 2 {
            service = service.env("CHANGE", change.to_string());
        }
        app = app.service(service);
    }
    Ok(app.validate()?)
}

/// From a running supervisor with nothing to do until all are ready. Returns the last one.
async fn up() -> Result<Local> {
    let mut deployed = Vec::new();
    let mut by_hand = Vec::new();
    let mut last = None;
    for round in 0..ROUNDS {
        let addresses = bare::free_addresses(SERVICES)?;
        let start = Instant::now();
        let started = addresses.iter().map(|a| bare::start(*a)).collect::<Result<Vec<_>>>()?;
        bare::poll(&addresses)?;
        by_hand.push(start.elapsed().as_secs_f64());
        drop(started);

        let local = Local::open().await?;
        deployed.push(local.deploy(app(0)?).await?);
        if round + 1 < ROUNDS {
            local.remove("fifty").await?;
        } else {
            last = Some(local);
        }
    }
    compare("up", "local_up_50", &deployed, &by_hand);
    last.ok_or_else(|| "no rounds".into())
}

/// Pairs of the same round.
fn compare(what: &str, name: &str, deployed: &[Phases], by_hand: &[f64]) {
    let whole = |phases: &Phases| phases.whole();
    let (ours, theirs) = (median(deployed.iter().map(whole)), median(by_hand.iter().copied()));
    let phases = Phases::tell(deployed);
    println!("{what}: {:.1} ms deployed ({phases}), {:.1} ms by hand", ours * 1e3, theirs * 1e3);
    let ratios = deployed.iter().map(whole).zip(by_hand).map(|(a, b)| a / b);
    ratio(name, median(ratios), Goal::AtMost(1.5));
}

/// Plan and apply of what is there already, over the smallest process that there is.
async fn unchanged(local: &Local) -> Result<()> {
    let folder = TempDir::new()?;
    let program = static_program(folder.path())?;
    let mut deployed = Vec::new();
    let mut spawned = Vec::new();
    for _ in 0..ROUNDS * 4 {
        let start = Instant::now();
        Command::new(&program).status()?;
        spawned.push(start.elapsed().as_secs_f64());

        let resolved = local.deployer.prepare(app(0)?).await?;
        let start = Instant::now();
        let plan = local.deployer.plan(Change::Deploy(Box::new(resolved))).await?;
        let applied = local.deployer.apply(plan, &mut Silent).await?;
        deployed.push(start.elapsed().as_secs_f64());
        if applied.steps != 0 {
            return Err(format!("{} steps for an unchanged app", applied.steps).into());
        }
    }
    let (deployed, spawned) = (median(deployed), median(spawned));
    println!("unchanged: {:.2} ms, a process {:.2} ms", deployed * 1e3, spawned * 1e3);
    ratio("local_noop_50", deployed / spawned, Goal::AtMost(10.0));
    Ok(())
}

fn static_program(folder: &Path) -> Result<PathBuf> {
    let source = folder.join("nothing.rs");
    let program = folder.join("nothing");
    fs::write(&source, "fn main() {}\n")?;
    let mut rustc = Command::new("rustc");
    rustc.args(["-C", "target-feature=+crt-static", "-C", "opt-level=3", "-o"]);
    let status = rustc.arg(&program).arg(&source).status()?;
    if !status.success() {
        return Err(format!("rustc: {status}").into());
    }
    Ok(program)
}

/// One service gets another environment, over starting one process and stopping another by hand.
async fn change_one(local: &Local) -> Result<()> {
    let mut deployed = Vec::new();
    let mut by_hand = Vec::new();
    for round in 1..=ROUNDS {
        let address = bare::free_address()?;
        let start = Instant::now();
        let process = bare::start(address)?;
        bare::poll(&[address])?;
        drop(process);
        by_hand.push(start.elapsed().as_secs_f64());

        deployed.push(local.deploy(app(round)?).await?);
    }
    compare("one changed", "local_change_one_of_50", &deployed, &by_hand);
    Ok(())
}

/// The supervisor's memory, and supervisord's with the same processes.
fn memory(local: &Local) -> Result<()> {
    let ours = resident_mib(supervisor(local)?)?;
    println!("supervisord: {:.1} MiB with the same {SERVICES}", supervisord()?);
    ratio("supervisor_rss_mib", ours, Goal::AtMost(30.0));
    Ok(())
}

/// The process that was executed for the state folder.
fn supervisor(local: &Local) -> Result<u32> {
    let folder = local.folder.path().as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && command.windows(folder.len()).any(|w| w == folder) {
            return Ok(pid);
        }
    }
    Err("no supervisor among the processes".into())
}

fn supervisord() -> Result<f64> {
    let folder = TempDir::new()?;
    let addresses = bare::free_addresses(SERVICES)?;
    let at = folder.path().display();
    let mut config = format!(
        "[supervisord]\nnodaemon=true\nlogfile={at}/log\nchildlogdir={at}\npidfile={at}/pid\n\
         user=root\n"
    );
    for (n, address) in addresses.iter().enumerate() {
        let (command, port) = (bare::SERVICE, address.port());
        write!(
            config,
            "[program:service{n:02}]\ncommand={command}\nenvironment=PORT=\"{port}\"\n"
        )?;
    }
    let file = folder.path().join("supervisord.conf");
    fs::write(&file, config)?;
    let mut command = Command::new(peer("supervisord")?);
    command.arg("-c").arg(&file).stdout(Stdio::null());
    let mut process = ProcessGuard::spawn(&mut command)?;
    bare::poll(&addresses)?;
    // It counts a program as started after a second.
    std::thread::sleep(Duration::from_secs(2));
    let resident = resident_mib(process.id());
    process.terminate()?;
    resident
}
