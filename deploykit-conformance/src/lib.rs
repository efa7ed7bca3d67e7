//! The behaviour kit that every DeployKit backend passes.

pub mod testapp;
pub mod vectors;
