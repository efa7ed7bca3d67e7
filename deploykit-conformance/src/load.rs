//! Requests without a pause, each answer checked.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use deploykit_core::model::{Address, AppName, ServiceName};
use serde::Deserialize;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::client::Client;

/// How many connections there are at once.
const CONNECTIONS: usize = 8;
/// How many failures are described.
const DESCRIBED: usize = 5;

/// Requests to one service from 8 connections at once, until it is stopped. No request is sent
/// twice, and a request counts as failed unless its answer is what the test application says.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    workers: JoinSet<Outcome>,
}

/// What became of the requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How many were sent.
    pub sent: u64,
    /// How many were not answered as they should be.
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// How many were answered by each version.
    pub versions: BTreeMap<String, u64>,
    /// The instances that answered.
    pub instances: BTreeSet<String>,
}

/// What the test application says of itself.
#[derive(Debug, Deserialize)]
pub(crate) struct Facts {
    pub(crate) version: String,
    pub(crate) instance: String,
}

impl Load {
    pub(crate) fn start(
        client: &dyn Client,
        app: &AppName,
        service: &ServiceName,
        address: &Address,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (stop, sent, mut client) = (stop.clone(), sent.clone(), client.another());
            let (app, service, address) = (app.clone(), service.clone(), address.clone());
            workers.spawn(async move {
                let mut outcome = Outcome::default();
                while !stop.load(Ordering::Relaxed) {
                    let answer = client.send(&app, &service, &address, ("GET", "/", "")).await;
                    sent.fetch_add(1, Ordering::Relaxed);
                    outcome.note(match answer {
                        Ok(answer) if answer.status == 200 => serde_json::from_str(&answer.body)
                            .map_err(|e| format!("{e}: {}", answer.body)),
                        Ok(answer) => Err(format!("{answer:?}")),
                        Err(error) => Err(error.to_string()),
                    });
                    sleep(Duration::from_millis(2)).await;
                }
                outcome
            });
        }
        Self { stop, sent, workers }
    }

    /// Waits until at least `requests` more have been sent.
    pub async fn more(&self, requests: u64) {
        let until = self.sent.load(Ordering::Relaxed) + requests;
        while self.sent.load(Ordering::Relaxed) < until {
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends it, when at least 500 requests have been sent, and tells what became of them.
    pub async fn stop(mut self) -> Outcome {
        let sent = self.sent.load(Ordering::Relaxed);
        self.more(500_u64.saturating_sub(sent)).await;
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Outcome::default();
        while let Some(part) = self.workers.join_next().await {
            match part {
                Ok(part) => all.add(part),
                Err(error) => all.note(Err(format!("a client has failed: {error}"))),
            }
        }
        all
    }
}

impl Outcome {
    fn note(&mut self, answer: Result<Facts, String>) {
        self.sent += 1;
        match answer {
            Ok(facts) => {
                *self.versions.entry(facts.version).or_default() += 1;
                self.instances.insert(facts.instance);
            }
            Err(failure) => {
                self.failed += 1;
                self.failures.push(failure);
                self.failures.truncate(DESCRIBED);
            }
        }
    }

    fn add(&mut self, other: Self) {
        self.sent += other.sent;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(DESCRIBED);
        for (version, count) in other.versions {
            *self.versions.entry(version).or_default() += count;
        }
        self.instances.extend(other.instances);
    }
}
