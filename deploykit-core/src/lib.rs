//! The model, plans, traits and rollout engine of DeployKit, with in-memory backends.
