//! Running a command beside an instance.

use std::io::{Read, Write, stderr, stdin, stdout};
use std::process::ExitCode;

use deploykit::model::AppName;
use deploykit::{Deployer, Error, ErrorKind, ExecOutput, ExecRequest, Exit, OutputStream, Result};
use futures_util::StreamExt;

use crate::file::failed;
use crate::terminal::Raw;

#[derive(clap::Args)]
pub struct ExecArguments {
    app: AppName,
    /// An instance, or a service: then one of its ready instances.
    target: String,
    /// Hand standard input to the command, read to its end; or with `-t` as it is typed.
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Run the command in this terminal.
    #[arg(short = 't', long)]
    tty: bool,
    /// The program and its arguments.
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

impl ExecArguments {
    pub async fn run(&self, deployer: &Deployer) -> Result<ExitCode> {
        let instance = self.instance(deployer).await?;
        let mut request = ExecRequest::new(&self.command);
        // Until it is dropped, the terminal leaves everything to the command's.
        let mut raw = None;
        if self.tty {
            let (begun, terminal) = Raw::begin()?;
            (raw, request.terminal) = (Some(begun), Some(terminal));
        } else if self.stdin {
            let read = stdin().read_to_end(&mut request.stdin);
            read.map_err(|e| failed("read", "standard input", e))?;
        }
        let mut outputs = deployer.exec(&self.app, &instance, request).await?;
        if let Some(raw) = &raw {
            raw.attend()?;
        }
        while let Some(output) = outputs.next().await {
            let written = match output? {
                ExecOutput::Output(OutputStream::Stdout, bytes) => {
                    stdout().write_all(&bytes).and_then(|()| stdout().flush())
                }
                ExecOutput::Output(OutputStream::Stderr, bytes) => stderr().write_all(&bytes),
                ExecOutput::Exit(exit) => return Ok(code(exit)),
            };
            written.map_err(|e| failed("write", "the command's output", e))?;
        }
        let message = "the backend has not said how the command ended";
        Err(Error::new(ErrorKind::Failed, "run the command", message))
    }

    async fn instance(&self, deployer: &Deployer) -> Result<String> {
        let observation = deployer.status(&self.app).await?.observation;
        let named = observation.instance(&self.target).map(|instance| instance.id.clone());
        let ready = || {
            let mut ready = observation.instances.iter().filter(|i| i.ready);
            ready.find(|i| i.service == *self.target).map(|i| i.id.clone())
        };
        named.or_else(ready).ok_or_else(|| {
            let message = format!(
                "{} is neither an instance of {} nor a service with a ready one",
                self.target, self.app
            );
            Error::new(ErrorKind::NotFound, "run the command", message)
        })
    }
}

fn code(exit: Exit) -> ExitCode {
    let code = match exit {
        Exit::Code(code) => code,
        Exit::Signal(signal) => 128 + signal,
        Exit::Lost => 1,
    };
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
