//! `docker compose` on the same engine with the same services.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use deploykit_benches::{Result, peer};

use crate::engine::SIGNAL;
use crate::ours::Kind;

pub(crate) struct Compose {
    program: PathBuf,
    file: PathBuf,
}

impl Compose {
    /// A project of `services` services of `image`.
    pub(crate) fn write(folder: &Path, image: &str, kind: Kind, services: usize) -> Result<Self> {
        let mut text = String::from("name: compose\nservices:\n");
        for n in 0..services {
            write!(
                text,
                "  service{n:02}:\n    image: {image}\n    stop_signal: {SIGNAL}\n    \
                 environment: {{HOST: 0.0.0.0}}\n"
            )?;
            if kind != Kind::Plain {
                text.push_str(
                    "    healthcheck: {test: [CMD, /usr/local/bin/bench-service, check], interval: 1s}\n",
                );
            }
            if kind == Kind::Chain && n > 0 {
                let before = n - 1;
                writeln!(
                    text,
                    "    depends_on: {{service{before:02}: {{condition: service_healthy}}}}"
                )?;
            }
        }
        let file = folder.join(format!("compose-{kind:?}-{services}.yaml"));
        std::fs::write(&file, text)?;
        Ok(Self { program: peer("docker-compose")?, file })
    }

    /// Runs a command of it, and returns the seconds that it took.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<f64> {
        let start = Instant::now();
        let mut command = Command::new(&self.program);
        command.arg("-f").arg(&self.file).args(arguments);
        let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{command:?}: {}: {said}", output.status).into());
        }
        Ok(start.elapsed().as_secs_f64())
    }
}
