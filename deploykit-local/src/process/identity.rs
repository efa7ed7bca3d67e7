//! Which process it is: a pid alone may be given to another process later.

use std::io;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A process of this machine, told apart from any other that ever had its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// The boot that it runs in.
    pub(crate) boot: String,
    /// Its pid.
    pub(crate) pid: u32,
    /// When it was started, in clock ticks since the boot.
    pub(crate) started: u64,
}

/// What the third and later fields of `/proc/PID/stat` say
/// ([proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// Its process group.
    pub(crate) group: u32,
    /// When it was started, in clock ticks since the boot.
    pub(crate) started: u64,
    /// Whether it has ended and only waits for its parent.
    pub(crate) zombie: bool,
}

impl Stat {
    /// Reads what the kernel says of `pid`; `None` where there is no such process.
    pub(crate) fn read(pid: u32) -> io::Result<Option<Self>> {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(text) => Self::parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!("/proc/{pid}/stat is unreadable: {text}"),
                )
            }),
            // ESRCH: it ended between open and read.
            Err(e) if e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(3) => {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The program's name stands in brackets and may itself hold blanks and brackets.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            zombie: matches!(*fields.first()?, "Z" | "X"),
            group: fields.get(2)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

/// The id of the running boot, which is read once.
pub(crate) fn boot_id() -> io::Result<String> {
    static BOOT: OnceLock<String> = OnceLock::new();
    if let Some(boot) = BOOT.get() {
        return Ok(boot.clone());
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(BOOT.get_or_init(|| boot.trim().to_owned()).clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_is_no_obstacle() {
        let text = "12 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0";
        assert_eq!(Stat::parse(text), Some(Stat { group: 7, started: 4242, zombie: false }));
        assert_eq!(Stat::parse("12 (a"), None);
    }

    #[test]
    fn this_process_is_found_and_a_missing_one_is_not() {
        assert!(!Stat::read(std::process::id()).unwrap().unwrap().zombie);
        assert_eq!(Stat::read(u32::MAX).unwrap(), None);
        assert!(!boot_id().unwrap().is_empty());
    }
}
