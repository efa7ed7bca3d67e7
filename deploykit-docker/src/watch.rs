//! When there is something new to see.

use bollard::query_parameters::EventsOptionsBuilder;
use deploykit_agent::control::Changes;
use deploykit_core::model::AppName;
use deploykit_core::{ErrorKind, Result};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::engine::Engine;
use crate::error::error;
use crate::keeper::Keepers;
use crate::names;

/// The shortest time between two changes that are told.
const GAP: std::time::Duration = std::time::Duration::from_millis(40);
/// How long is waited before the engine's events are asked for again.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(200);
/// How often they are asked for in a row without an answer.
const TRIES: u32 = 150;
/// How often a keeper is looked for that is not there yet.
const LOOK: std::time::Duration = std::time::Duration::from_secs(1);

/// Yields when the engine tells of an object of the app, and when the keeper's probes tell another
/// thing.
pub(crate) fn changes(
    engine: Engine,
    keepers: Keepers,
    app: AppName,
) -> BoxStream<'static, Result<()>> {
    let (tell, told) = mpsc::channel(1);
    tokio::spawn(async move {
        tokio::select! {
            () = tell.closed() => {}
            () = events(&engine, &app, &tell) => {}
            () = probes(&keepers, &app, &tell) => {}
        }
    });
    // The first of several is told at once, the others together.
    stream::unfold((told, Instant::now()), |(mut told, next)| async move {
        tokio::time::sleep_until(next).await;
        let said = told.recv().await?;
        Some((said, (told, Instant::now() + GAP)))
    })
    .boxed()
}

/// Says that there is something new; what was not taken yet says the same.
fn notice(tell: &mpsc::Sender<Result<()>>) {
    let _ = tell.try_send(Ok(()));
}

async fn events(engine: &Engine, app: &AppName, tell: &mpsc::Sender<Result<()>>) {
    let mut failures = 0;
    while failures < TRIES {
        let options = EventsOptionsBuilder::new().filters(&names::of(app, None)).build();
        let mut events = std::pin::pin!(engine.api.events(Some(options)));
        while let Some(Ok(event)) = events.next().await {
            failures = 0;
            // What we run beside instances to talk to agents is no change.
            if !event.action.unwrap_or_default().starts_with("exec_") {
                notice(tell);
            }
        }
        // Whatever happened meanwhile is one change.
        failures += 1;
        tokio::time::sleep(PAUSE).await;
        notice(tell);
    }
    let message = "the engine tells no events any more; see whether it runs";
    let _ = tell.send(Err(error(ErrorKind::Unavailable, "watch the app", message))).await;
}

async fn probes(keepers: &Keepers, app: &AppName, tell: &mpsc::Sender<Result<()>>) {
    loop {
        let changes: Option<Changes> = match keepers.get(app).await {
            Ok(keeper) => keeper.agent.changes().await.ok(),
            Err(_) => None,
        };
        if let Some(mut changes) = changes {
            notice(tell);
            while changes.changed().await.is_ok() {
                notice(tell);
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}
