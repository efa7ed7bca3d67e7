//! Shared parts of the benches: figures, what the kernel counts of a process, and peers.

mod deployctl;
mod figure;
mod peer;
mod process;

pub use deployctl::deployctl;
pub use figure::{Goal, compare, median, ratio};
pub use peer::peer;
pub use process::{ProcessGuard, cpu_seconds, resident_mib};

/// What ends a bench: a message for whoever runs it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What a bench comes to.
pub type Result<T> = std::result::Result<T, Failure>;
