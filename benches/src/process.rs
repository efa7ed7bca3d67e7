//! Processes of a bench, and what the kernel counts of them.

use std::fs;
use std::process::{Child, Command};

use crate::Result;

/// A process that ends with its guard.
#[derive(Debug)]
pub struct ProcessGuard(Child);

impl ProcessGuard {
    /// Starts a process.
    ///
    /// # Errors
    /// Where it cannot be started; the message names it.
    pub fn spawn(command: &mut Command) -> Result<Self> {
        match command.spawn() {
            Ok(child) => Ok(Self(child)),
            Err(e) => Err(format!("{}: {e}", command.get_program().display()).into()),
        }
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// Where there is no `kill` to ask with.
    pub fn terminate(&mut self) -> Result<()> {
        Command::new("kill").arg(self.0.id().to_string()).status()?;
        self.0.wait()?;
        Ok(())
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for ProcessGuard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The CPU time that a process has used, in user mode and in the kernel: `utime` and `stime` of
/// [proc_pid_stat(5)](https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html), in seconds.
///
/// # Errors
/// Where there is no such process.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    // Linux tells user space hundredths on every architecture that we run on.
    const TICKS_PER_SECOND: f64 = 100.0;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is in parentheses and may hold anything; the third follows the last of them.
    let (_, fields) = stat.rsplit_once(") ").ok_or("no fields in /proc/PID/stat")?;
    let ticks = |n: usize| -> Result<f64> {
        Ok(fields.split(' ').nth(n - 3).ok_or("a short /proc/PID/stat")?.parse::<f64>()?)
    };
    Ok((ticks(14)? + ticks(15)?) / TICKS_PER_SECOND)
}

/// The memory of a process that is in RAM, in MiB.
///
/// # Errors
/// Where there is no such process.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kib = line.split_whitespace().next().ok_or("an empty VmRSS")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn this_process_uses_time_and_memory() {
        let me = std::process::id();
        let before = cpu_seconds(me).unwrap();
        let mut sum = 0_u64;
        while cpu_seconds(me).unwrap() < before + 0.02 {
            sum = (0..100_000).fold(sum, |a, b: u64| std::hint::black_box(a ^ b));
        }
        assert!(resident_mib(me).unwrap() > 0.1);
    }
}
