//! The short way to an agent: its own socket, where its container is on this machine.
//!
//! An engine takes some fifty milliseconds to run a command in a container. Where it is reached by
//! a socket of this machine, and this program may look into its containers (as root may), the
//! folders of a container are below `/proc/PID/root`. Everywhere else there is no short way: not on
//! another machine, in another user's session, or from within a container.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use deploykit_agent::control::socket as agent_socket;
use tokio::net::UnixStream;

use crate::agent::STATE;
use crate::config::Host;
use crate::engine::Engine;

/// How often, and how long apart, an agent is tried that has just been started.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(5);

/// Connects to the agent of a container; nothing where that takes the engine.
pub(crate) async fn connect(engine: &Engine, container: &str) -> Option<UnixStream> {
    let Host::Unix(_) = engine.transport.host() else { return None };
    let found = engine.api.inspect_container(container, None).await.ok()?;
    let (id, process) = (found.id?, found.state?.pid.filter(|pid| *pid > 0)?);
    let process = PathBuf::from(format!("/proc/{process}"));
    let socket = agent_socket(&process.join("root").join(STATE.trim_start_matches('/')));
    for _ in 0..TRIES {
        // Seen from elsewhere, the process of that number is another one.
        if !is_of(&process, &id) {
            return None;
        }
        match UnixStream::connect(&socket).await {
            Ok(stream) => return is_of(&process, &id).then_some(stream),
            Err(e) if is_starting(&e) => tokio::time::sleep(PAUSE).await,
            Err(_) => return None,
        }
    }
    None
}

/// Whether a process runs in the container of an id.
fn is_of(process: &Path, id: &str) -> bool {
    std::fs::read_to_string(process.join("cgroup")).is_ok_and(|groups| groups.contains(id))
}

/// Whether an agent may not listen yet.
fn is_starting(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn another_process_is_not_taken_for_the_one_of_a_container() {
        let id = "3ff8c28a9fa98f394ae65897d5784bd3c54cfa9724f2704540f4e791cab8d0ef";
        assert!(!super::is_of(Path::new("/proc/self"), id));
        assert!(!super::is_of(Path::new("/proc/0"), id));
    }
}
