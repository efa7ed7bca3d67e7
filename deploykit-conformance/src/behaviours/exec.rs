//! Commands beside instances.

use deploykit_core::{ErrorKind, ExecOutput, ExecRequest, Exit, OutputStream};
use futures_util::TryStreamExt;

use crate::test::Test;

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
