//! The behaviour kit on a current engine.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

fn main() -> std::process::ExitCode {
    common::kit("DEPLOYKIT_TEST_DOCKER_NEW")
}
