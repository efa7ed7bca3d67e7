//! What is told of transfers while they run.

use serde::Serialize;

use crate::digest::Digest;

/// What happens to a blob on its way to or from a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Transfer {
    /// It begins.
    Started {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// Some of it has been transferred. Where a transfer has to start anew, `done` goes back.
    Moved {
        /// The blob.
        digest: Digest,
        /// How many bytes of it are there by now.
        done: u64,
    },
    /// It is where it should be.
    Finished {
        /// The blob.
        digest: Digest,
        /// How it came there.
        outcome: Outcome,
    },
}

/// How a blob came to be where it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was there already.
    Existing,
    /// The registry took it from another of its repositories.
    Mounted,
    /// It was uploaded.
    Sent,
    /// It was downloaded.
    Received,
}
