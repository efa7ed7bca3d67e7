//! The Docker engine as a backend against the bare calls of the engine and `docker compose`:
//! `cargo bench -p deploykit-benches --bench docker [-- FAMILY...]`, as root.
//!
//! It starts an engine of its own. One line `RATIO name value <=|>= goal` for each figure, each
//! against a baseline of the same run; the other lines say what is behind it. A missed goal is no
//! failure, a missing peer is. What is deployed has no need of a proxy, as Compose has none; our
//! keeper and all writes of the state are within our times.

mod compose;
mod engine;
mod ours;

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Instant, SystemTime};

use compose::Compose;
use deploykit::Deployer;
use deploykit_benches::{Goal, Result, compare, median};
use engine::Engine;
use ours::Kind;

/// How often a figure of ten or fewer services is taken, and one of fifty; its median counts.
const ROUNDS: usize = 7;
const ROUNDS_OF_FIFTY: usize = 3;

/// The name of the image outside of any app.
const IMAGE: &str = "bench-service:1";

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("docker: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode> {
    // Cargo itself says `--bench`.
    let families: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    if std::env::var_os("DEPLOYKIT_TEST_DOCKER").is_some() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(run(&families))?;
        return Ok(ExitCode::SUCCESS);
    }
    let testbed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed/run");
    let mut again = Command::new(testbed);
    again.args(["--servers", "docker"]).arg(std::env::current_exe()?).args(&families);
    Ok(if again.status()?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What the figures are taken with.
struct Bench {
    engine: Engine,
    deployer: Deployer,
    folder: tempfile::TempDir,
}

async fn run(families: &[String]) -> Result<()> {
    let wanted = |family: &str| families.is_empty() || families.iter().any(|f| f == family);
    for family in families {
        if !["ten", "fifty", "ready", "chain"].contains(&family.as_str()) {
            return Err(format!("no family `{family}`: ten, fifty, ready, chain").into());
        }
    }
    let engine = Engine::find()?;
    let deployer = deploykit::open(&engine.url()).await?;
    let bench = Bench { engine, deployer, folder: tempfile::tempdir()? };
    bench.load().await?;
    if wanted("ten") {
        bench.ten().await?;
    }
    if wanted("fifty") {
        bench.fifty().await?;
    }
    if wanted("ready") {
        bench.ready().await?;
    }
    if wanted("chain") {
        bench.chain().await?;
    }
    Ok(())
}

fn names(services: usize) -> Vec<String> {
    (0..services).map(|n| format!("floor-{n}")).collect()
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64())
}

impl Bench {
    /// Makes the one image that all run, and warms up the engine.
    async fn load(&self) -> Result<()> {
        ours::deploy(&self.deployer, ours::app(Kind::Plain, 1, 0)?).await?;
        let list = self.engine.call("GET", "/images/json", "")?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        let tags = list.as_array().into_iter().flatten().filter_map(|i| i["RepoTags"].as_array());
        let tag = tags.flatten().filter_map(|tag| tag.as_str()).find(|t| !t.contains(":agent-"));
        let (repository, version) = IMAGE.split_once(':').unwrap_or((IMAGE, ""));
        let tag = tag.ok_or("the engine has no image")?;
        let path = format!("/images/{tag}/tag?repo={repository}&tag={version}");
        self.engine.call("POST", &path, "")?;
        ours::remove(&self.deployer).await?;
        self.engine.up(IMAGE, &names(1))?;
        self.engine.down(&names(1))
    }

    async fn ten(&self) -> Result<()> {
        let (mut rounds, mut after_one) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let names = names(10);
            let floor = seconds(|| self.engine.up(IMAGE, &names))?;
            self.engine.down(&names)?;
            let first = [String::from("floor-first")];
            let floor_after_one = seconds(|| {
                self.engine.up(IMAGE, &first)?;
                self.engine.start(IMAGE, &names)
            })?;
            self.engine.down(&[&first[..], &names].concat())?;
            let ours = ours::deploy(&self.deployer, ours::app(Kind::Plain, 10, 0)?).await?;
            ours::remove(&self.deployer).await?;
            rounds.push((ours, floor));
            after_one.push(ours / floor_after_one);
        }
        compare("up_10", &rounds, "the engine's calls", Goal::AtMost(1.1));
        let after_one = median(after_one);
        println!(
            "# up_10 over calls that start one before all others, as our keeper: {after_one:.3}"
        );
        Ok(())
    }

    async fn fifty(&self) -> Result<()> {
        const N: usize = 50;
        let compose = Compose::write(self.folder.path(), IMAGE, Kind::Plain, N)?;
        let (mut up, mut up_compose, mut down, mut change, mut noop) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for round in 1..=ROUNDS_OF_FIFTY {
            let names = names(N);
            let floor_up = seconds(|| self.engine.up(IMAGE, &names))?;
            let one = [format!("floor-{}", N / 2)];
            let floor_change = seconds(|| {
                self.engine.stop(&one)?;
                self.engine.start(IMAGE, &one)
            })?;
            let floor_down = seconds(|| self.engine.down(&names))?;

            let theirs = compose.run(&["up", "-d"])?;
            let nothing = compose.run(&["up", "-d"])?;
            compose.run(&["down", "-t", "0"])?;

            let ours = ours::deploy(&self.deployer, ours::app(Kind::Plain, N, 0)?).await?;
            up.push((ours, floor_up));
            up_compose.push((ours, theirs));
            let start = Instant::now();
            // As a program of its own does it.
            let deployer = deploykit::open(&self.engine.url()).await?;
            ours::deploy(&deployer, ours::app(Kind::Plain, N, 0)?).await?;
            noop.push((start.elapsed().as_secs_f64(), nothing));
            let ours = ours::deploy(&self.deployer, ours::app(Kind::Plain, N, round)?).await?;
            change.push((ours, floor_change));
            down.push((ours::remove(&self.deployer).await?, floor_down));
        }
        let calls = "the engine's calls";
        compare("up_50", &up, calls, Goal::AtMost(1.1));
        compare("down_50", &down, calls, Goal::AtMost(1.1));
        compare("change_one_of_50", &change, calls, Goal::AtMost(1.1));
        compare("up_50_over_compose", &up_compose, "compose", Goal::AtMost(1.0));
        compare("noop_50", &noop, "compose", Goal::AtMost(0.6));
        Ok(())
    }

    /// From the start of the last one to the end of the wait for all.
    async fn ready(&self) -> Result<()> {
        let compose = Compose::write(self.folder.path(), IMAGE, Kind::Probed, 50)?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS_OF_FIFTY {
            compose.run(&["up", "-d", "--wait"])?;
            let theirs = self.since_last_start()?;
            compose.run(&["down", "-t", "0"])?;
            ours::deploy(&self.deployer, ours::app(Kind::Probed, 50, 0)?).await?;
            let ours = self.since_last_start()?;
            ours::remove(&self.deployer).await?;
            rounds.push((ours, theirs));
        }
        compare("ready_delay_50", &rounds, "compose", Goal::AtMost(0.2));
        Ok(())
    }

    /// Seconds since the newest container of the service was started.
    fn since_last_start(&self) -> Result<f64> {
        let now = SystemTime::now();
        let list = self.engine.call("GET", "/containers/json", "")?;
        let list: serde_json::Value = serde_json::from_str(&list)?;
        let mut newest = SystemTime::UNIX_EPOCH;
        for container in list.as_array().into_iter().flatten() {
            let command = container["Command"].as_str().unwrap_or_default();
            if !command.contains("bench-service") {
                continue;
            }
            let id = container["Id"].as_str().unwrap_or_default();
            let found = self.engine.call("GET", &format!("/containers/{id}/json"), "")?;
            let found: serde_json::Value = serde_json::from_str(&found)?;
            let started = found["State"]["StartedAt"].as_str().unwrap_or_default();
            newest = newest.max(humantime::parse_rfc3339_weak(started)?);
        }
        Ok(now.duration_since(newest)?.as_secs_f64())
    }

    async fn chain(&self) -> Result<()> {
        let compose = Compose::write(self.folder.path(), IMAGE, Kind::Chain, 5)?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let theirs = compose.run(&["up", "-d", "--wait"])?;
            compose.run(&["down", "-t", "0"])?;
            let ours = ours::deploy(&self.deployer, ours::app(Kind::Chain, 5, 0)?).await?;
            ours::remove(&self.deployer).await?;
            rounds.push((ours, theirs));
        }
        compare("chain_5_healthy", &rounds, "compose", Goal::AtMost(0.35));
        Ok(())
    }
}
