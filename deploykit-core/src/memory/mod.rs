//! Backends in memory, for the tests of programs that embed this library: nothing is started, no
//! file is written, and under `tokio::time::pause` a rollout of minutes takes no time.
//!
//! ```
//! use deploykit_core::memory;
//! let host = memory::Host::new();
//! assert_eq!(host.mutations(), 0);
//! ```

mod coordination;
mod dials;
mod host;
mod images;
mod registry;
mod secrets;
mod state;

use std::sync::{Mutex, MutexGuard, PoisonError};

pub use coordination::Coordination;
pub use dials::{Dials, dial};
pub use host::{Host, Response};
pub use images::Images;
pub use registry::Registry;
pub use secrets::Secrets;
pub use state::State;

/// What a panicking test has left is good enough for the others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
