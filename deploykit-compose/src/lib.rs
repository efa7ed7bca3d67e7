//! Compose files, loaded as the
//! [Compose specification](https://github.com/compose-spec/compose-spec) says.

mod dotenv;
mod interpolate;
mod short;

pub use dotenv::{DotenvError, dotenv};
pub use interpolate::{InterpolateError, interpolate};
pub use short::{
    PortError, PortShort, VolumeError, VolumeKind, VolumeShort, format_duration, parse_bytes,
    parse_duration, parse_port, parse_volume,
};
