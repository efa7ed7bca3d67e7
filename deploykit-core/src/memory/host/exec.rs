//! Commands beside simulated instances.

use std::collections::BTreeMap;

use crate::observation::Exit;
use crate::orchestrator::{ExecOutput, ExecRequest, OutputStream};

/// The words of a command, without the test application's own name before them.
fn words(command: &[String]) -> Vec<&str> {
    let words = command.iter().map(|word| word.rsplit('/').next().unwrap_or(word));
    match command.iter().position(|word| word == "exec") {
        Some(place) => command.iter().skip(place + 1).map(String::as_str).collect(),
        None => words.take(1).chain(command.iter().skip(1).map(String::as_str)).collect(),
    }
}

/// Whether the command of a probe passes.
pub(super) fn passes(command: &[String], healthy: bool) -> bool {
    match words(command).as_slice() {
        ["false", ..] => false,
        ["healthy", ..] => healthy,
        _ => true,
    }
}

/// What a command says: `env`, `echo WORDS`, `cat` and `false` are there.
pub(super) fn run(
    request: &ExecRequest,
    env: &BTreeMap<String, String>,
    healthy: bool,
) -> Vec<ExecOutput> {
    let (stdout, code) = match words(&request.command).as_slice() {
        ["env"] => {
            let lines: Vec<String> = env.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
            (lines.concat().into_bytes(), 0)
        }
        ["echo", words @ ..] => (format!("{}\n", words.join(" ")).into_bytes(), 0),
        ["cat"] => (request.stdin.clone(), 0),
        ["healthy"] => (Vec::new(), i32::from(!healthy)),
        ["false"] => (Vec::new(), 1),
        _ => {
            let line = format!("{:?}: not found\n", request.command).into_bytes();
            let complaint = ExecOutput::Output(OutputStream::Stderr, line);
            return vec![complaint, ExecOutput::Exit(Exit::Code(127))];
        }
    };
    let said = (!stdout.is_empty()).then_some(ExecOutput::Output(OutputStream::Stdout, stdout));
    said.into_iter().chain([ExecOutput::Exit(Exit::Code(code))]).collect()
}
