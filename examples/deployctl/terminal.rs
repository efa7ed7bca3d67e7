//! The terminal that deployctl runs in, as that of a command elsewhere.

use std::io::{self, Read, stdin, stdout};

use deploykit::{Error, ErrorKind, Result, Terminal, TerminalInput, TerminalSize, TerminalUser};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};

use crate::file::failed;

/// A terminal that hands on what is typed as it is typed, until this is dropped.
pub struct Raw {
    before: Termios,
    user: TerminalUser,
}

impl Raw {
    /// Begins, with the terminal for a command.
    ///
    /// # Errors
    /// Where standard input or output is none.
    pub fn begin() -> Result<(Self, Terminal)> {
        if !isatty(stdin()) || !isatty(stdout()) {
            let message = "standard input and output are no terminal; leave out -t";
            return Err(Error::new(ErrorKind::Invalid, "run the command in a terminal", message));
        }
        let before = tcgetattr(stdin()).map_err(cannot)?;
        let (terminal, user) = Terminal::new(size()?);
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(cannot)?;
        Ok((Self { before, user }, terminal))
    }

    /// Hands on what is typed, and each change of size.
    pub fn attend(&self) -> Result<()> {
        let mut resized = signal(SignalKind::window_change()).map_err(cannot)?;
        let user = self.user.clone();
        tokio::spawn(async move {
            while resized.recv().await.is_some() {
                let Ok(size) = size() else { return };
                if !user.send(TerminalInput::Size(size)).await {
                    return;
                }
            }
        });
        // Not a task: it may wait for a key when the command has ended, and with it the program.
        let (user, runtime) = (self.user.clone(), Handle::current());
        std::thread::spawn(move || {
            let mut keys = [0; 4096];
            while let Ok(typed @ 1..) = stdin().lock().read(&mut keys) {
                let keys = TerminalInput::Keys(keys[..typed].to_vec());
                if !runtime.block_on(user.send(keys)) {
                    return;
                }
            }
        });
        Ok(())
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.before);
    }
}

fn size() -> Result<TerminalSize> {
    let size = tcgetwinsize(stdout()).map_err(cannot)?;
    Ok(TerminalSize { columns: size.ws_col, rows: size.ws_row })
}

fn cannot(error: impl Into<io::Error>) -> Error {
    failed("use", "the terminal", error.into())
}
