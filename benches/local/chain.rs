//! Five services that wait for each other, over the time that they themselves take.

use deploykit::model::{App, Condition, ImageSpec, Port, Probe, Service};
use deploykit_benches::{Goal, Result, median, ratio};

use crate::local::Local;
use crate::{ROUNDS, bare};

const LENGTH: usize = 5;
const READY_AFTER_MS: u32 = 200;

pub(crate) async fn run() -> Result<()> {
    let mut seconds = Vec::new();
    for _ in 0..ROUNDS {
        let local = Local::open().await?;
        seconds.push(local.deploy(app()?).await?.whole());
        local.remove("chain").await?;
    }
    let alone = LENGTH as f64 * f64::from(READY_AFTER_MS) / 1000.0;
    let whole = median(seconds);
    println!("chain: {whole:.3} s until the last of {LENGTH} is ready, {alone:.3} s of their own");
    ratio("chain_5_healthy", whole / alone, Goal::AtMost(1.15));
    Ok(())
}

fn app() -> Result<App> {
    let mut app = App::build("chain");
    for n in 0..LENGTH {
        let mut service = Service::build(format!("link{n}"), ImageSpec::binary(bare::SERVICE))
            .port(Port::http(8080))
            .readiness(Probe::http("/healthz"))
            .env("READY_AFTER_MS", READY_AFTER_MS.to_string());
        if n > 0 {
            service = service.depends_on(format!("link{}", n - 1), Condition::Healthy);
        }
        app = app.service(service);
    }
    Ok(app.validate()?)
}
