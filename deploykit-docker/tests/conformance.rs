//! The behaviour kit on the oldest engine that is supported.
#![allow(clippy::panic, clippy::unwrap_used, clippy::expect_used)]

mod common;

fn main() -> std::process::ExitCode {
    common::kit("DEPLOYKIT_TEST_DOCKER")
}
