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

impl Transfer {
    /// In words, where it begins or ends.
    pub(crate) fn describe(&self) -> Option<String> {
        let short = |digest: &Digest| digest.hex().get(..12).unwrap_or_default().to_owned();
        match self {
            Self::Started { digest, size } => {
                Some(format!("{}: {size} bytes are on their way", short(digest)))
            }
            Self::Finished { digest, outcome } => Some(format!("{}: {outcome}", short(digest))),
            Self::Moved { .. } => None,
        }
    }
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

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Existing => "is there",
            Self::Mounted => "taken from another repository",
            Self::Sent => "sent",
            Self::Received => "received",
        })
    }
}
