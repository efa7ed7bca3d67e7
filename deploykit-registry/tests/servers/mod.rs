//! Where the real servers of the tests are.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::time::{SystemTime, UNIX_EPOCH};

/// The hosts that the variable names; without it, a skip that is told, or under CI a failure.
pub fn hosts(variable: &str, test: &str) -> Option<String> {
    match std::env::var(variable) {
        Ok(hosts) => Some(hosts),
        Err(_) if std::env::var("CI").as_deref() == Ok("true") => {
            panic!("{variable} is not set: `testbed/run` sets it")
        }
        Err(_) => {
            println!("{test}: skipped: {variable} is not set; `testbed/run` sets it");
            None
        }
    }
}

/// A name that no other run uses.
pub fn unique(test: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    format!("{test}-{now}-{}", std::process::id())
}
