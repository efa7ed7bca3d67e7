//! A deployer that may be killed: a process of its own that makes one change.

use std::path::PathBuf;
use std::process::{ExitCode, Stdio};
use std::sync::Arc;

use deploykit_core::model::{App, AppName, ServiceName};
use deploykit_core::{Change, Result};
use serde::{Deserialize, Serialize};

use crate::bed::Bed;
use crate::faults::{Death, Fault};
use crate::kit::{Settings, runtime};
use crate::test::Test;

/// The environment variable with the order.
const ORDER: &str = "DEPLOYKIT_CONFORMANCE_ORDER";

/// What a change is, as data.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    Deploy(Box<App>),
    Scale(ServiceName, u32),
    Rollback(u64),
    Remove,
}

/// An order to a process of its own.
#[derive(Debug, Serialize, Deserialize)]
struct Sealed {
    folder: PathBuf,
    app: AppName,
    order: Order,
    call: u64,
    fault: Fault,
}

/// How a deployer has ended, in words for people.
#[derive(Debug)]
#[allow(dead_code, reason = "read through Debug, in messages")]
pub(crate) enum End {
    /// Its fault has killed it.
    Killed,
    /// It was told of a failure at this call.
    Failed(String),
    /// It got to its end without a fault, which says why or how.
    Missed(String),
}

impl Order {
    /// Makes the change.
    pub(crate) async fn carry_out(&self, test: &Test) -> Result<()> {
        let app = test.name().clone();
        let change = match self {
            Self::Deploy(app) => {
                let ready = test.deployer().prepare((**app).clone()).await?;
                Change::Deploy(Box::new(ready))
            }
            Self::Scale(service, replicas) => {
                Change::Scale { app, service: service.clone(), replicas: *replicas }
            }
            Self::Rollback(to) => Change::Rollback { app, to: Some(*to) },
            Self::Remove => Change::Remove { app, volumes: true },
        };
        test.change(change).await.map(drop)
    }

    /// Makes the change by a deployer at whose call of that number `fault` strikes. A killed one
    /// is a process that gets SIGKILL, or a dropped future where the backend is simulated.
    pub(crate) async fn carry_out_with(&self, test: &Test, call: u64, fault: Fault) -> End {
        if fault.is_deadly() && !test.settings.simulated {
            let sealed = Sealed {
                folder: test.bed.folder().to_owned(),
                app: test.name().clone(),
                order: self.clone(),
                call,
                fault,
            };
            return in_a_process(&sealed).await;
        }
        let other = test.another().await;
        let death = match &test.settings.kill_host {
            Some(kill) if fault == Fault::HostDies => {
                let (kill, bed) = (Arc::clone(kill), other.bed.clone());
                Death::OfHost(Box::new(move || kill(&bed)))
            }
            _ => Death::Silence,
        };
        other.bed.faults().arm(call, fault, death);
        tokio::select! {
            biased;
            done = self.carry_out(&other) => match other.bed.faults().struck() {
                Some(call) => End::Failed(call),
                None => End::Missed(format!("{done:?}")),
            },
            () = other.bed.faults().died() => End::Killed,
        }
    }
}

async fn in_a_process(sealed: &Sealed) -> End {
    use std::os::unix::process::ExitStatusExt;
    let (program, text) = match (std::env::current_exe(), serde_json::to_string(sealed)) {
        (Ok(program), Ok(text)) => (program, text),
        (program, text) => return End::Missed(format!("{program:?} {text:?}")),
    };
    let output = tokio::process::Command::new(program)
        .env(ORDER, text)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .output()
        .await;
    let output = match output {
        Ok(output) => output,
        Err(error) => return End::Missed(error.to_string()),
    };
    match output.status.signal() {
        Some(9) => End::Killed,
        _ => {
            let said = String::from_utf8_lossy(&output.stderr);
            End::Missed(format!("{}: {said}", output.status))
        }
    }
}

/// Carries out an order, where this process was given one.
pub(crate) fn run_if_asked(settings: &Arc<Settings>) -> Option<ExitCode> {
    let text = std::env::var(ORDER).ok()?;
    let outcome = serde_json::from_str(&text).map_err(|e| e.to_string()).and_then(|sealed| {
        let runtime = runtime(settings).map_err(|e| e.to_string())?;
        runtime.block_on(obey(settings, sealed)).map_err(|e| e.to_string())
    });
    Some(match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    })
}

async fn obey(settings: &Arc<Settings>, sealed: Sealed) -> Result<()> {
    let bed = Bed::new(sealed.folder);
    let test = Test::connect(Arc::clone(settings), bed, sealed.app).await?;
    test.bed.faults().arm(sealed.call, sealed.fault, Death::Signal);
    sealed.order.carry_out(&test).await
}
