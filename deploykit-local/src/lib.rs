//! DeployKit on plain OS processes: a supervisor, SQLite state and encrypted secrets.
