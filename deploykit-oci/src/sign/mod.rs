//! Signatures of images, interoperable with cosign.
mod claim;
mod encrypted;
mod judge;
mod key;
mod pem;

pub use claim::Format;
pub use key::{PrivateKey, PublicKey};
