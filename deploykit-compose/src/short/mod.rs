//! The short forms of values: `8080:80/tcp`, `data:/var/lib:ro`, `1m30s`, `64mb`, a line of words.

mod port;
mod units;
mod volume;
mod words;

pub use port::{PortError, PortShort, parse_port};
pub use units::{format_duration, parse_bytes, parse_duration};
pub(crate) use volume::is_path;
pub use volume::{VolumeError, VolumeKind, VolumeShort, parse_volume};
pub(crate) use words::split_words;
