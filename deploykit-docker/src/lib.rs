//! DeployKit on a Docker engine.
