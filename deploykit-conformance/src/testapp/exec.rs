//! What the test application does as a command beside an instance.

use std::io::{self, BufRead, IsTerminal, Read, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

/// Runs a command.
pub(super) fn run(words: &[&str]) -> ExitCode {
    match command(words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{words:?}: {error}");
            ExitCode::from(127)
        }
    }
}

fn command(words: &[&str]) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    match words {
        ["env"] => {
            for (name, value) in std::env::vars_os() {
                writeln!(out, "{}={}", name.to_string_lossy(), value.to_string_lossy())?;
            }
        }
        ["echo", words @ ..] => writeln!(out, "{}", words.join(" "))?,
        ["cat"] => drop(io::copy(&mut io::stdin().lock(), &mut out)?),
        ["false"] => return Ok(false),
        ["healthy"] => return healthy(),
        ["terminal"] => return at_a_terminal(&mut out),
        _ => return Err(io::Error::other("not found")),
    }
    Ok(true)
}

/// Does what is typed at its terminal, line by line: `size` says the terminal's, `leave` fails.
fn at_a_terminal(out: &mut impl Write) -> io::Result<bool> {
    let stdout = io::stdout();
    if !(io::stdin().is_terminal() && stdout.is_terminal() && io::stderr().is_terminal()) {
        return Err(io::Error::other("not a terminal"));
    }
    for line in io::stdin().lock().lines() {
        match line?.as_str() {
            "size" => {
                let size = rustix::termios::tcgetwinsize(&stdout)?;
                writeln!(out, "{} by {}", size.ws_col, size.ws_row)?;
            }
            "leave" => return Ok(false),
            other => writeln!(out, "{other:?} is no command")?,
        }
    }
    Ok(true)
}

/// Asks the instance that it runs beside.
fn healthy() -> io::Result<bool> {
    let variable = |name: &str| std::env::var(name).map_err(io::Error::other);
    let port = variable("PORT")?.parse().map_err(io::Error::other)?;
    let host = match variable("HOST")?.as_str() {
        "0.0.0.0" => "127.0.0.1".to_owned(),
        host => host.to_owned(),
    };
    let mut stream = TcpStream::connect((host.as_str(), port))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    write!(stream, "GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 200"))
}
