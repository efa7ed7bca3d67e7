//! Loading Compose projects, against `docker compose`: `cargo bench -p deploykit-benches --bench
//! compose`.
//!
//! Each figure is the time of a whole process, `deployctl config`, over that of `docker-compose
//! config` on the same files. The two take turns; the median of each counts.

mod project;

use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use deploykit_benches::{Goal, Result, deployctl, median, peer, ratio};

/// How often each process is run.
const ROUNDS: usize = 21;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compose: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let ours = deployctl(&[])?;
    let theirs = peer("docker-compose")?;
    let folder = tempfile::tempdir()?;
    for services in [5, 200] {
        let file = project::write(folder.path(), services)?;
        let [mut us, mut them] = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            us.push(milliseconds(Command::new(&ours).arg("config").arg("-f").arg(&file))?);
            them.push(milliseconds(Command::new(&theirs).arg("-f").arg(&file).arg("config"))?);
        }
        let (us, them) = (median(us), median(them));
        println!("{services} services: deployctl {us:.1} ms, docker-compose {them:.1} ms");
        ratio(&format!("load_{services}_services"), us / them, Goal::AtMost(0.2));
    }
    Ok(())
}

/// How long a process takes from its start to its end.
fn milliseconds(command: &mut Command) -> Result<f64> {
    let started = Instant::now();
    let output = command.stdin(Stdio::null()).stderr(Stdio::piped()).output()?;
    let took = started.elapsed().as_secs_f64() * 1000.0;
    // A project that is not shown is not loaded.
    if !output.status.success() || !output.stdout.starts_with(b"name: bench") {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{:?}: {}: {error}", command.get_program(), output.status).into());
    }
    Ok(took)
}
