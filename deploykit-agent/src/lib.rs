//! The helper beside services: a draining reverse proxy and a prober.
