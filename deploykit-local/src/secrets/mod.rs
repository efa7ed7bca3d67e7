//! Secrets: encrypted at rest with a key outside of the state folder, and given to instances as
//! files in memory.

mod delivery;
mod key;
mod wire;

pub(crate) use delivery::Delivery;
pub(crate) use key::{Key, path as key_path};
pub(crate) use wire::Wire;
