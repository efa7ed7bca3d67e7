//! Deploys the program that the first argument names as a web service of three instances.

use deploykit::model::{App, ImageSpec, Port, Probe, Service};
use deploykit::{Change, Result, progress};

#[tokio::main]
async fn main() -> Result<()> {
    deploykit::init(); // lets this program serve as its own supervisor
    let program = std::env::args().nth(1).unwrap_or("target/release/web".into());
    let deployer = deploykit::open("local://").await?;
    let web = Service::build("web", ImageSpec::binary(program))
        .replicas(3)
        .port(Port::http(8080).public()) // told to the program as HOST and PORT
        .readiness(Probe::http("/healthz"));
    let app = App::build("shop").service(web).validate()?;
    let plan = deployer.plan(Change::Deploy(Box::new(deployer.prepare(app).await?))).await?;
    println!("{plan}");
    deployer.apply(plan, &mut progress::terminal()).await?;
    Ok(())
}
