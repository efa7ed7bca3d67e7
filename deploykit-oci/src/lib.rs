//! Container images without a daemon: built from files or a program, the same bytes from the
//! same input, kept in an OCI layout, and unpacked; and the formats around them, read as the reference
//! implementations read them.

mod build;
mod digest;
mod dockerfile;
mod dockerignore;
mod error;
mod images;
mod layout;
mod reference;
mod registry;
pub mod sign;
pub mod spec;
mod unpack;
pub mod versions;

pub use build::{Compression, CopyOptions, Recipe, join_platforms};
pub use digest::{Digest, DigestError};
pub use dockerfile::{Dockerfile, DockerfileError, Heredoc, Instruction};
pub use dockerignore::DockerIgnore;
pub use images::Images;
pub use layout::{BlobReader, BlobWriter, Layout};
pub use reference::{Reference, ReferenceError};
pub use registry::{
    Challenge, Credentials, Document, Outcome, PlainHttp, RegistryClient, RegistryConfig, Transfer,
};
pub use unpack::UnpackLimits;
