//! Requests at a fixed rate, whatever becomes of the earlier ones: no request is sent twice, and
//! each answer is checked.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

/// Requests each second.
const RATE: u32 = 200;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub struct Outcome {
    pub sent: usize,
    /// What became of those that were not answered as they should be.
    pub failures: Vec<String>,
    /// How many were answered by each version.
    pub versions: BTreeMap<String, usize>,
}

/// Requests to a port of this machine for `least`, and on until `enough` is told.
pub async fn send(port: u16, least: Duration, enough: Arc<Notify>) -> Outcome {
    let mut requests = JoinSet::new();
    let mut ticks = interval(Duration::from_secs(1) / RATE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begun = Instant::now();
    let mut over = false;
    while !over || begun.elapsed() < least {
        tokio::select! {
            _ = ticks.tick() => {
                requests.spawn(async move {
                    match timeout(PATIENCE, ask(port)).await {
                        Ok(answer) => answer,
                        Err(_) => Err("no answer in time".to_owned()),
                    }
                });
            }
            () = enough.notified(), if !over => over = true,
        }
    }
    let mut outcome = Outcome::default();
    while let Some(answer) = requests.join_next().await {
        outcome.sent += 1;
        match answer.unwrap() {
            Ok(version) => *outcome.versions.entry(version).or_default() += 1,
            Err(failure) => outcome.failures.push(failure),
        }
    }
    outcome
}

/// The version that answers.
async fn ask(port: u16) -> Result<String, String> {
    let failed = |e: std::io::Error| e.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.map_err(failed)?;
    let request = "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map_err(failed)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer was cut off")?;
    if !head.contains(" 200 ") {
        return Err(answer);
    }
    let start = body.find('{').ok_or_else(|| answer.clone())?;
    let end = body.rfind('}').ok_or_else(|| answer.clone())?;
    let facts: serde_json::Value =
        serde_json::from_str(&body[start..=end]).map_err(|e| format!("{e}: {answer}"))?;
    facts["version"].as_str().map(str::to_owned).ok_or(answer)
}
