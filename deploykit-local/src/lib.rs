//! DeployKit on plain OS processes.
#![allow(dead_code)]

#[cfg(not(target_os = "linux"))]
compile_error!("deploykit-local runs on Linux only: it needs pidfds and /proc");

mod addresses;
mod database;
mod error;
mod executables;
mod folder;
mod logs;
mod process;
mod secrets;
