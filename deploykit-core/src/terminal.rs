//! Terminals of commands beside instances.

use tokio::sync::mpsc;

/// How many inputs may wait for a command that does not read.
const BACKLOG: usize = 16;

/// A terminal's width and height, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Its width.
    pub columns: u16,
    /// Its height.
    pub rows: u16,
}

/// What a user does at a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TerminalInput {
    /// Types: characters, and control characters like `^C` (3).
    Keys(Vec<u8>),
    /// Changes its size.
    Size(TerminalSize),
}

/// A terminal for a command: its size, and what is done at it while the command runs.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use deploykit_core::{ExecRequest, Terminal, TerminalInput, TerminalSize};
/// let (terminal, user) = Terminal::new(TerminalSize { columns: 80, rows: 24 });
/// let mut request = ExecRequest::new(["sh"]);
/// request.terminal = Some(terminal);
/// // ... `Deployer::exec`, and while its outputs are read:
/// assert!(user.send(TerminalInput::Keys(b"ls\r".to_vec())).await);
/// # });
/// ```
#[derive(Debug)]
pub struct Terminal {
    size: TerminalSize,
    input: mpsc::Receiver<TerminalInput>,
}

impl Terminal {
    /// A terminal, and whoever sits at it.
    pub fn new(size: TerminalSize) -> (Self, TerminalUser) {
        let (sender, input) = mpsc::channel(BACKLOG);
        (Self { size, input }, TerminalUser(sender))
    }

    /// Its size at first.
    pub fn size(&self) -> TerminalSize {
        self.size
    }

    /// What is done next; waits for ever where nobody sits at it any more, which ends no command.
    ///
    /// Cancel-safe: nothing is lost.
    pub async fn next(&mut self) -> TerminalInput {
        match self.input.recv().await {
            Some(input) => input,
            None => std::future::pending().await,
        }
    }
}

/// Sits at a [`Terminal`].
#[derive(Clone, Debug)]
pub struct TerminalUser(mpsc::Sender<TerminalInput>);

impl TerminalUser {
    /// Does something; waits while the command does not read. Returns whether the command was there
    /// to be told: not when it has ended.
    ///
    /// Cancel-safe: a dropped call may have done it or not.
    pub async fn send(&self, input: TerminalInput) -> bool {
        self.0.send(input).await.is_ok()
    }
}
