//! Another deployer: this program again, as a process of its own.

use std::process::Stdio;

use deploykit::Event;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::report::{Failure, expect};
use crate::app::Release;

/// A deployer that is at work. It dies with this value.
pub struct Rival {
    process: Child,
    events: Lines<BufReader<ChildStdout>>,
}

impl Rival {
    /// Lets another process deploy a release.
    pub fn deploy(url: &str, release: &Release) -> Result<Self, Failure> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["deploy", "--on", url])
            .args(["--version", &release.version.to_string()])
            .args(["--replicas", &release.replicas.to_string()])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let events = process.stdout.take().ok_or_else(|| Failure::new("a pipe", "none"))?;
        Ok(Self { process, events: BufReader::new(events).lines() })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// Waits until it reports an event.
    pub async fn reports(
        &mut self,
        what: &str,
        is_it: impl Fn(&Event) -> bool,
    ) -> Result<(), Failure> {
        while let Some(line) = self.events.next_line().await? {
            if is_it(&serde_json::from_str(&line)?) {
                return Ok(());
            }
        }
        let ended = self.process.wait().await?;
        Err(Failure::new(format!("the other deployer to report {what}"), ended))
    }

    /// Waits until it has ended with success.
    pub async fn ends_well(mut self) -> Result<(), Failure> {
        while self.events.next_line().await?.is_some() {}
        let ended = self.process.wait().await?;
        expect(ended.success(), "the other deployer to end with exit code 0", ended)
    }

    /// Ends it by SIGKILL.
    pub async fn kill(mut self) -> Result<(), Failure> {
        Ok(self.process.kill().await?)
    }
}
