//! The behaviour kit that every DeployKit backend passes.
