//! The same services, deployed.

use std::time::Instant;

use deploykit::model::{App, AppName, Condition, ImageSpec, Port, Probe, Service, Signal, Update};
use deploykit::{Change, Deployer, Silent};
use deploykit_benches::Result;

/// The service that is deployed.
pub(crate) const SERVICE: &str = env!("CARGO_BIN_EXE_bench-service");

/// What the services of an app are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// They run, and that is all.
    Plain,
    /// They are asked by http whether they are ready.
    Probed,
    /// They are asked, and each waits for the one before it.
    Chain,
}

/// An app of `services` services. One of them has `change` in its environment.
pub(crate) fn app(kind: Kind, services: usize, change: usize) -> Result<App> {
    let mut app = App::build("ours");
    for n in 0..services {
        let mut service = Service::build(format!("service{n:02}"), ImageSpec::binary(SERVICE))
            .update(Update::recreate())
            .stop_signal(Signal::Kill);
        if kind != Kind::Plain {
            service = service.port(Port::http(8080)).readiness(Probe::http("/healthz"));
        }
        if kind == Kind::Chain && n > 0 {
            service = service.depends_on(format!("service{:02}", n - 1), Condition::Healthy);
        }
        if change > 0 && n == services / 2 {
            service = service.env("CHANGE", change.to_string());
        }
        app = app.service(service);
    }
    Ok(app.validate()?)
}

/// Prepares, plans and applies; returns when everything is ready: the seconds that it took.
pub(crate) async fn deploy(deployer: &Deployer, app: App) -> Result<f64> {
    let start = Instant::now();
    let resolved = deployer.prepare(app).await?;
    let prepared = start.elapsed();
    let plan = deployer.plan(Change::Deploy(Box::new(resolved))).await?;
    let planned = start.elapsed();
    deployer.apply(plan, &mut Silent).await?;
    let applied = start.elapsed();
    println!(
        "#   prepare {:.0} ms, plan {:.0} ms, apply {:.0} ms",
        prepared.as_secs_f64() * 1e3,
        (planned - prepared).as_secs_f64() * 1e3,
        (applied - planned).as_secs_f64() * 1e3
    );
    Ok(applied.as_secs_f64())
}

/// Removes the app: the seconds that it took.
pub(crate) async fn remove(deployer: &Deployer) -> Result<f64> {
    let start = Instant::now();
    let change = Change::Remove { app: AppName::new("ours")?, volumes: true };
    let plan = deployer.plan(change).await?;
    deployer.apply(plan, &mut Silent).await?;
    Ok(start.elapsed().as_secs_f64())
}
