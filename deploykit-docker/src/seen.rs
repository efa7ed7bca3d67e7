//! What was last seen of containers, for as long as the engine tells of no change.
//!
//! A look at an app inspects each of its containers, and an apply looks often: what the engine's
//! events have not named since is not asked for again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerSummary};
use bollard::query_parameters::EventsOptionsBuilder;
use deploykit_core::model::AppName;
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use crate::names;

/// How long something seen is believed: a connection may be dead without anybody's being told.
const LONGEST: Duration = Duration::from_secs(30);
/// From when on changes are told of: the engine remembers some hundred of the last ones.
const EVER: &str = "1";
/// How long is waited before the events are asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// The containers of an engine as they were last seen.
#[derive(Debug)]
pub(crate) struct Seen {
    known: Arc<Mutex<Known>>,
    events: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Known {
    /// Whether the engine is telling of changes.
    told: bool,
    /// By their ids.
    containers: HashMap<String, Container>,
    /// The id and labels of each that is known to be ours, by its name.
    ours: HashMap<String, Owned>,
}

/// A container that is ours.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) id: String,
    pub(crate) labels: HashMap<String, String>,
}

#[derive(Debug, Default)]
struct Container {
    changes: u64,
    found: Option<(Instant, Arc<ContainerInspectResponse>)>,
}

/// When a look at a container was begun.
pub(crate) struct Begun(Option<u64>);

impl Drop for Seen {
    fn drop(&mut self) {
        self.events.abort();
    }
}

impl Seen {
    /// Begins to listen to an engine.
    pub(crate) fn new(api: Docker) -> Self {
        let known: Arc<Mutex<Known>> = Arc::default();
        let events = tokio::spawn(listen(api, Arc::clone(&known)));
        Self { known, events }
    }

    /// What was seen of a container, where it has not changed.
    pub(crate) fn unchanged(
        &self,
        listed: &ContainerSummary,
    ) -> Option<Arc<ContainerInspectResponse>> {
        let known = lock(&self.known);
        let (at, found) = known.containers.get(listed.id.as_ref()?)?.found.as_ref()?;
        // An event may come after the answer to the call that it is about.
        let state = found.state.as_ref()?.status.as_ref()?.to_string();
        let same = listed.state.as_ref().is_some_and(|listed| listed.to_string() == state);
        (same && at.elapsed() < LONGEST).then(|| Arc::clone(found))
    }

    /// To be called before a container is inspected.
    pub(crate) fn begin(&self, id: &str) -> Begun {
        let known = lock(&self.known);
        let changes = known.containers.get(id).map_or(0, |container| container.changes);
        Begun(known.told.then_some(changes))
    }

    /// Keeps what was found, where nothing has changed meanwhile.
    pub(crate) fn keep(&self, id: &str, begun: Begun, found: &Arc<ContainerInspectResponse>) {
        let mut known = lock(&self.known);
        if !known.told {
            return;
        }
        let container = known.containers.entry(id.to_owned()).or_default();
        if begun.0 == Some(container.changes) {
            container.found = Some((Instant::now(), Arc::clone(found)));
        }
    }

    /// Remembers the containers of an app.
    pub(crate) fn list(&self, app: &AppName, listed: &[ContainerSummary]) {
        let mut known = lock(&self.known);
        known.ours.retain(|_, owned| !names::are_ours(&owned.labels, app));
        for container in listed {
            let (Some(id), Some(labels)) = (&container.id, &container.labels) else { continue };
            let names = container.names.iter().flatten();
            for name in names.filter_map(|name| name.strip_prefix('/')) {
                let owned = Owned { id: id.clone(), labels: labels.clone() };
                known.ours.insert(name.to_owned(), owned);
            }
        }
    }

    /// Remembers a container that was made.
    pub(crate) fn made(&self, name: &str, owned: Owned) {
        lock(&self.known).ours.insert(name.to_owned(), owned);
    }

    /// A container that is known to be ours. It may be gone.
    pub(crate) fn ours(&self, name: &str) -> Option<Owned> {
        lock(&self.known).ours.get(name).cloned()
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Drops what has changed.
async fn listen(api: Docker, known: Arc<Mutex<Known>>) {
    let ours = format!("{}={}", names::MANAGED_BY, names::US);
    let filters = HashMap::from([
        ("label".to_owned(), vec![ours]),
        ("type".to_owned(), vec!["container".to_owned()]),
    ]);
    loop {
        let options = EventsOptionsBuilder::new().filters(&filters).since(EVER).build();
        let mut events = std::pin::pin!(api.events(Some(options)));
        while let Some(Ok(event)) = events.next().await {
            let mut known = lock(&known);
            // Only what has told something tells everything from then on: mostly at once, of what
            // was before.
            known.told = true;
            let action = event.action.unwrap_or_default();
            let Some(id) = event.actor.and_then(|actor| actor.id) else { continue };
            if action == "destroy" {
                known.containers.remove(&id);
                known.ours.retain(|_, owned| owned.id != id);
            } else if !action.starts_with("exec_") {
                let container = known.containers.entry(id).or_default();
                container.changes += 1;
                container.found = None;
            }
        }
        {
            let mut known = lock(&known);
            known.told = false;
            known.containers.clear();
        }
        tokio::time::sleep(PAUSE).await;
    }
}
