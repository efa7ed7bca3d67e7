//! The dials of the test application: environment variables that make it slow, ill or stubborn.

use std::collections::BTreeMap;
use std::time::Duration;

/// The names of the dials.
pub mod dial {
    /// What it calls its version.
    pub const VERSION: &str = "TESTAPP_VERSION";
    /// Milliseconds from its start until it listens.
    pub const START_DELAY_MS: &str = "TESTAPP_START_DELAY_MS";
    /// Milliseconds from its start until its health check passes.
    pub const HEALTHY_AFTER_MS: &str = "TESTAPP_HEALTHY_AFTER_MS";
    /// Milliseconds from its start after which its health check fails; 0 for always.
    pub const UNHEALTHY_AFTER_MS: &str = "TESTAPP_UNHEALTHY_AFTER_MS";
    /// Milliseconds from its start after which it ends by itself.
    pub const EXIT_AFTER_MS: &str = "TESTAPP_EXIT_AFTER_MS";
    /// The exit code with which it ends by itself. Default 0.
    pub const EXIT_CODE: &str = "TESTAPP_EXIT_CODE";
    /// A volume in whose file `runs` it writes a line with its instance id at each start.
    pub const RUNS: &str = "TESTAPP_RUNS";
    /// With [`RUNS`]: it ends by itself with exit code 1 as long as that file has no more lines
    /// than this.
    pub const FAIL_RUNS: &str = "TESTAPP_FAIL_RUNS";
    /// Any value: it takes no notice of its stop signal.
    pub const IGNORE_STOP: &str = "TESTAPP_IGNORE_STOP";
    /// Milliseconds from its stop signal until it ends.
    pub const DRAIN_MS: &str = "TESTAPP_DRAIN_MS";
    /// Mebibytes of memory that it fills when it has started.
    pub const EAT_MIB: &str = "TESTAPP_EAT_MIB";
    /// A line that it prints to standard output when it starts.
    pub const PRINT: &str = "TESTAPP_PRINT";
}

/// The dials as they are set.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::time::Duration;
/// use deploykit_core::memory::{Dials, dial};
/// let env = BTreeMap::from([(dial::START_DELAY_MS.to_owned(), "200".to_owned())]);
/// assert_eq!(Dials::read(&env).start_delay, Duration::from_millis(200));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Dials {
    /// [`dial::VERSION`], empty where it is not set.
    pub version: String,
    /// [`dial::START_DELAY_MS`].
    pub start_delay: Duration,
    /// [`dial::HEALTHY_AFTER_MS`].
    pub healthy_after: Duration,
    /// [`dial::UNHEALTHY_AFTER_MS`].
    pub unhealthy_after: Option<Duration>,
    /// [`dial::EXIT_AFTER_MS`].
    pub exit_after: Option<Duration>,
    /// [`dial::EXIT_CODE`].
    pub exit_code: i32,
    /// [`dial::RUNS`].
    pub runs: Option<String>,
    /// [`dial::FAIL_RUNS`].
    pub fail_runs: u64,
    /// [`dial::IGNORE_STOP`].
    pub ignore_stop: bool,
    /// [`dial::DRAIN_MS`].
    pub drain: Duration,
    /// [`dial::EAT_MIB`].
    pub eat_mib: u64,
    /// [`dial::PRINT`].
    pub print: Option<String>,
}

impl Dials {
    /// The dials of an environment. One whose value is no number counts as not set.
    pub fn read(env: &BTreeMap<String, String>) -> Self {
        let number = |name: &str| env.get(name).and_then(|v| v.parse::<u64>().ok());
        let time = |name: &str| number(name).map(Duration::from_millis);
        Self {
            version: env.get(dial::VERSION).cloned().unwrap_or_default(),
            start_delay: time(dial::START_DELAY_MS).unwrap_or_default(),
            healthy_after: time(dial::HEALTHY_AFTER_MS).unwrap_or_default(),
            unhealthy_after: time(dial::UNHEALTHY_AFTER_MS),
            exit_after: time(dial::EXIT_AFTER_MS),
            exit_code: env.get(dial::EXIT_CODE).and_then(|v| v.parse().ok()).unwrap_or_default(),
            runs: env.get(dial::RUNS).cloned(),
            fail_runs: number(dial::FAIL_RUNS).unwrap_or_default(),
            ignore_stop: env.contains_key(dial::IGNORE_STOP),
            drain: time(dial::DRAIN_MS).unwrap_or_default(),
            eat_mib: number(dial::EAT_MIB).unwrap_or_default(),
            print: env.get(dial::PRINT).cloned(),
        }
    }

    /// Whether it listens, that long after its start.
    pub fn listens(&self, age: Duration) -> bool {
        age >= self.start_delay
    }

    /// Whether its health check passes, that long after its start.
    pub fn healthy(&self, age: Duration) -> bool {
        self.listens(age)
            && age >= self.healthy_after
            && self.unhealthy_after.is_none_or(|until| age < until)
    }
}
