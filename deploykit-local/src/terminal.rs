//! Commands in a terminal: a pseudo-terminal of the kernel's.
//!
//! A terminal belongs to a session, and only a process itself can begin one: so the program is
//! executed again, begins a session, takes the terminal, and becomes the command.

use std::fs::File;
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use deploykit_core::{Terminal, TerminalInput, TerminalSize};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe;
use tokio::process::Command;

/// The variable that makes [`init`](crate::init) the beginning of a command in a terminal.
pub(crate) const VARIABLE: &str = "DEPLOYKIT_TERMINAL";

/// A command that will run in a terminal, and the caller's ends of that.
pub(crate) struct Prepared {
    pub(crate) command: Command,
    pub(crate) output: pipe::Receiver,
    pub(crate) input: pipe::Sender,
}

/// Makes a terminal of a size and a command in it. The size is the terminal's before the command
/// can ask for it.
pub(crate) fn prepare(program: &str, args: &[String], size: TerminalSize) -> io::Result<Prepared> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let ours = openpt(flags)?;
    unlockpt(&ours)?;
    tcsetwinsize(&ours, winsize(size))?;
    let theirs = ioctl_tiocgptpeer(&ours, flags)?;
    rustix::io::ioctl_fionbio(&ours, true)?;
    let ours = File::from(ours);
    // To read and to write, it is like a pipe in each direction.
    let input = pipe::Sender::from_file_unchecked(ours.try_clone()?)?;
    let output = pipe::Receiver::from_file_unchecked(ours)?;
    // The program's path may name another file by now: it may have been built again.
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("deploykit-terminal")
        .arg(program)
        .args(args)
        .stdin(Stdio::from(theirs.try_clone()?))
        .stdout(Stdio::from(theirs.try_clone()?))
        .stderr(Stdio::from(theirs));
    Ok(Prepared { command, output, input })
}

/// Does at the command's terminal what is done at the caller's.
pub(crate) async fn type_in(mut terminal: Terminal, mut command: pipe::Sender) {
    loop {
        let told = match terminal.next().await {
            TerminalInput::Keys(keys) => command.write_all(&keys).await,
            TerminalInput::Size(size) => {
                tcsetwinsize(command.as_fd(), winsize(size)).map_err(io::Error::from)
            }
        };
        if told.is_err() {
            return;
        }
    }
}

fn winsize(size: TerminalSize) -> Winsize {
    Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Becomes the command that the arguments name. Returns why it cannot.
pub(crate) fn become_command() -> String {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().unwrap_or_default();
    let begun = rustix::process::setsid()
        .and_then(|_| rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()));
    let why = match begun {
        Ok(()) => std::process::Command::new(&program).args(words).env_remove(VARIABLE).exec(),
        Err(error) => error.into(),
    };
    format!("`{}` cannot be executed: {why}", program.display())
}
