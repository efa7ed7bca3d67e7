//! Commands beside instances.

use deploykit_core::{
    ErrorKind, ExecOutput, ExecRequest, Exit, OutputStream, Result, Terminal, TerminalInput,
    TerminalSize, TerminalUser,
};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tokio::time::timeout;

use crate::test::{PATIENCE, Test};

/// Runs a command beside the only instance of `web`: standard output, and how it ended.
async fn run(t: &Test, request: ExecRequest) -> (String, Exit) {
    let id = t.ids("web").await.remove(0);
    let said = t.deployer().exec(t.name(), &id, request).await.unwrap();
    let said: Vec<ExecOutput> = said.try_collect().await.unwrap();
    let mut stdout = Vec::new();
    let mut exit = None;
    for output in said {
        assert_eq!(exit, None, "the exit comes last");
        match output {
            ExecOutput::Output(OutputStream::Stdout, bytes) => stdout.extend(bytes),
            ExecOutput::Output(OutputStream::Stderr, _) => {}
            ExecOutput::Exit(code) => exit = Some(code),
        }
    }
    (String::from_utf8(stdout).unwrap(), exit.expect("an exit"))
}

pub(super) async fn commands_see_the_instance(t: &Test) {
    t.up(t.only(t.service("web", "1").env("OWN", "it's $mine"))).await.unwrap();
    let (env, exit) = run(t, ExecRequest::new(t.command(&["env"]))).await;
    assert_eq!(exit, Exit::Code(0));
    assert!(env.lines().any(|line| line == "OWN=it's $mine"), "{env}");
    let own = format!("DEPLOYKIT_INSTANCE={}", t.ids("web").await[0]);
    assert!(env.lines().any(|line| line == own), "{env}");
    let echo = t.command(&["echo", "a  b", "$HOME", "'"]);
    assert_eq!(run(t, ExecRequest::new(echo)).await, ("a  b $HOME '\n".into(), Exit::Code(0)));
    let mut cat = ExecRequest::new(t.command(&["cat"]));
    cat.stdin = b"two\nlines".to_vec();
    assert_eq!(run(t, cat).await, ("two\nlines".into(), Exit::Code(0)));
    assert_eq!(run(t, ExecRequest::new(t.command(&["false"]))).await.1, Exit::Code(1));
}

pub(super) async fn what_cannot_be_run_is_told(t: &Test) {
    t.up(t.web("1", 1)).await.unwrap();
    let request = ExecRequest::new(t.command(&["env"]));
    let missing = t.deployer().exec(t.name(), "nobody-0", request).await.err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let id = t.ids("web").await.remove(0);
    let request = ExecRequest::new(["/nonexistent/program"]);
    // Told either by the call or by the exit, as the backend finds it out.
    if let Ok(said) = t.deployer().exec(t.name(), &id, request).await
        && let Ok(said) = said.try_collect::<Vec<_>>().await
    {
        let Some(ExecOutput::Exit(exit)) = said.last() else { panic!("{said:?}") };
        assert!(!exit.is_success(), "{said:?}");
    }
    assert_eq!(t.ids("web").await, [id], "the instance is none the worse");
}

const FIRST: TerminalSize = TerminalSize { columns: 101, rows: 31 };
const SECOND: TerminalSize = TerminalSize { columns: 77, rows: 22 };

fn terminal(t: &Test) -> (ExecRequest, TerminalUser) {
    let (terminal, user) = Terminal::new(FIRST);
    let mut request = ExecRequest::new(t.command(&["terminal"]));
    request.terminal = Some(terminal);
    (request, user)
}

/// A command at whose terminal the test sits.
struct Sitting {
    user: TerminalUser,
    said: BoxStream<'static, Result<ExecOutput>>,
    text: String,
}

impl Sitting {
    async fn begin(t: &Test) -> Self {
        let (request, user) = terminal(t);
        let id = t.ids("web").await.remove(0);
        let said = t.deployer().exec(t.name(), &id, request).await.unwrap();
        Self { user, said, text: String::new() }
    }

    async fn press(&mut self, keys: &[u8]) {
        assert!(self.user.send(TerminalInput::Keys(keys.to_vec())).await);
    }

    /// Reads on; how the command has ended, where it has.
    async fn read(&mut self) -> Option<Exit> {
        let said = timeout(PATIENCE, self.said.next()).await;
        let said = said.unwrap_or_else(|_| panic!("it says no more than {:?}", self.text));
        match said.expect("an exit comes last").unwrap() {
            ExecOutput::Output(stream, bytes) => {
                assert_eq!(stream, OutputStream::Stdout, "a terminal has one output");
                self.text.push_str(&String::from_utf8_lossy(&bytes));
                None
            }
            ExecOutput::Exit(exit) => Some(exit),
        }
    }

    /// Asks the command for its terminal's size until it is this one.
    async fn until(&mut self, size: TerminalSize) {
        let wanted = format!("{} by {}\r\n", size.columns, size.rows);
        while !self.text.ends_with(&wanted) {
            self.text.clear();
            self.press(b"size\r").await;
            while !(self.text.contains(" by ") && self.text.ends_with("\r\n")) {
                assert_eq!(self.read().await, None, "{:?}", self.text);
            }
            assert!(self.text.starts_with("size\r\n"), "echoed, and as lines: {:?}", self.text);
        }
    }

    async fn end(mut self) -> Exit {
        loop {
            if let Some(exit) = self.read().await {
                assert!(self.said.next().await.is_none(), "the exit comes last");
                return exit;
            }
        }
    }
}

pub(super) async fn a_terminal_is_one(t: &Test) {
    t.up(t.web("1", 1)).await.unwrap();
    let mut sitting = Sitting::begin(t).await;
    sitting.until(FIRST).await;
    assert!(sitting.user.send(TerminalInput::Size(SECOND)).await);
    sitting.until(SECOND).await;
    sitting.press(b"leave\r").await;
    assert_eq!(sitting.end().await, Exit::Code(1));

    let mut interrupted = Sitting::begin(t).await;
    interrupted.until(FIRST).await;
    interrupted.press(&[3]).await;
    assert!(matches!(interrupted.end().await, Exit::Signal(2) | Exit::Code(130)), "by ^C");

    let mut finished = Sitting::begin(t).await;
    finished.until(FIRST).await;
    finished.press(&[4]).await;
    assert_eq!(finished.end().await, Exit::Code(0), "by the end of its input, ^D");

    let (mut twice, _user) = terminal(t);
    twice.stdin = b"size".to_vec();
    let id = t.ids("web").await.remove(0);
    let refused = t.deployer().exec(t.name(), &id, twice).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Invalid);
}

pub(super) async fn a_terminal_is_refused(t: &Test) {
    t.up(t.web("1", 1)).await.unwrap();
    let (request, user) = terminal(t);
    let id = t.ids("web").await.remove(0);
    let refused = t.deployer().exec(t.name(), &id, request).await.err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    assert!(!user.send(TerminalInput::Size(SECOND)).await, "nobody is there");
}
