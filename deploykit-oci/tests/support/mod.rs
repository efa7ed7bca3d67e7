//! What the tests of registries share.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cosign;
pub mod debian;
pub mod scripted;

use deploykit_oci::spec::{Descriptor, Platform};
use deploykit_oci::{Credentials, Layout, Recipe, Reference, RegistryConfig};

pub fn amd64() -> Platform {
    Platform { architecture: "amd64".into(), os: "linux".into(), variant: None }
}

/// Bytes that do not compress, the same for the same seed.
pub fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(size).collect()
}

/// A small image of a file.
pub fn image(layout: &Layout, content: &[u8]) -> Descriptor {
    let recipe = Recipe::scratch(amd64()).epoch(0);
    recipe.file("srv/data", 0o644, (0, 0), content).unwrap().build(layout).unwrap()
}

pub fn name(host: &str, rest: &str) -> Reference {
    Reference::parse_normalized(&format!("{host}/{rest}")).unwrap()
}

/// Nobody logged in, whatever this machine has.
pub fn config() -> RegistryConfig {
    let mut config = RegistryConfig::default();
    config.credentials = Credentials::none();
    config
}
