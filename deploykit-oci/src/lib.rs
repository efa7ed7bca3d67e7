//! Container images without a daemon.

mod digest;
mod dockerfile;
mod dockerignore;
mod reference;
pub mod spec;

pub use digest::{Digest, DigestError};
pub use dockerfile::{Dockerfile, DockerfileError, Heredoc, Instruction};
pub use dockerignore::DockerIgnore;
pub use reference::{Reference, ReferenceError};
