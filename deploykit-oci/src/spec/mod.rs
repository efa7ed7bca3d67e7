//! The documents of the OCI image format (<https://github.com/opencontainers/image-spec>, 1.1):
//! descriptors, manifests, indexes and configurations, and what makes such a document valid.

mod model;
mod validate;

pub use model::{
    Descriptor, Empty, Execution, History, Image, Index, Layout, Manifest, Platform, RootFs,
    media_type,
};
pub use validate::validate;
