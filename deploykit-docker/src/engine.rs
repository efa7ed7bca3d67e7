//! The engine that is spoken to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bollard::{ClientVersion, Docker};
use deploykit_core::{ErrorKind, Result};

use crate::config::Host;
use crate::error::{Mapped as _, error};
use crate::seen::Seen;
use crate::transport::{Transport, VERSION};

/// The longest that an engine may take to begin its answer to an ordinary call, in seconds.
const PATIENCE: u64 = 120;

/// A connection to an engine whose API is known to fit.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) api: Docker,
    pub(crate) transport: Arc<Transport>,
    /// The engine's own id.
    pub(crate) id: String,
    pub(crate) seen: Arc<Seen>,
    turns: Turns,
}

/// Who makes what, by its name.
type Turns = Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>;

/// Held by whoever makes something.
pub(crate) type Turn = tokio::sync::OwnedMutexGuard<()>;

impl Engine {
    /// Connects, and checks that the engine speaks our version of the API.
    pub(crate) async fn open(host: &Host) -> Result<Self> {
        const OPEN: &str = "open the docker backend";
        let transport = Transport::new(host.clone());
        let (major_version, minor_version) = VERSION;
        let calls = Arc::clone(&transport);
        let api = Docker::connect_with_custom_transport(
            move |request| Arc::clone(&calls).call(request),
            Some("http://docker"),
            PATIENCE,
            &ClientVersion { major_version, minor_version },
        )
        .tried(OPEN)?;
        let (said, info) = tokio::join!(api.version(), api.info());
        let said = said.map_err(|cause| {
            let cause = crate::error::engine(OPEN, cause);
            // An engine that no longer speaks our version says so, with its own range.
            let message = match cause.message().contains("API version") {
                true => format!(
                    "this library speaks API {major_version}.{minor_version}, the engine does not: {}",
                    cause.message()
                ),
                false => format!(
                    "no engine answers at {host}: {}; start it, or name another by DOCKER_HOST or the URL",
                    cause.message()
                ),
            };
            let kind = match cause.kind() {
                ErrorKind::Invalid => ErrorKind::Unsupported,
                kind => kind,
            };
            error(kind, OPEN, message)
        })?;
        let newest = said.api_version.unwrap_or_default();
        let oldest = said.min_api_version.unwrap_or_default();
        if !speaks(&oldest, &newest) {
            let message = format!(
                "the engine at {host} speaks API {oldest} to {newest}, and this library \
                 {major_version}.{minor_version}: use Docker 20.10 or newer"
            );
            return Err(error(ErrorKind::Unsupported, OPEN, message));
        }
        let id = info.tried(OPEN)?.id.unwrap_or_else(|| host.to_string());
        let seen = Arc::new(Seen::new(api.clone()));
        Ok(Self { api, transport, id, seen, turns: Arc::default() })
    }

    /// A turn in making something that several calls may want at once.
    pub(crate) async fn turn(&self, name: &str) -> Turn {
        let turn = {
            let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(turns.entry(name.to_owned()).or_default())
        };
        turn.lock_owned().await
    }
}

/// Whether our version lies within a range.
fn speaks(oldest: &str, newest: &str) -> bool {
    let read = |text: &str| -> Option<(usize, usize)> {
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let from = read(oldest).unwrap_or((0, 0));
    read(newest).is_some_and(|newest| from <= VERSION && VERSION <= newest)
}

#[cfg(test)]
mod tests {
    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(super::speaks("1.12", "1.41"));
        assert!(super::speaks("1.40", "1.56"));
        assert!(!super::speaks("1.12", "1.40"));
        assert!(!super::speaks("1.44", "1.60"));
        assert!(!super::speaks("1.12", "1.9"));
        assert!(!super::speaks("", ""));
    }
}
