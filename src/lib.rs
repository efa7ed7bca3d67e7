//! Build, deploy and operate multi-service applications from Rust.
