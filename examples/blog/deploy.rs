//! A deployer in a process of its own: what the walkthrough disturbs and kills.

use deploykit::{Change, Event};

use crate::Result;
use crate::app::Release;

/// Deploys a release and prints each event as a line of JSON.
pub async fn run(url: &str, release: &Release) -> Result<()> {
    let deployer = deploykit::open(url).await?;
    let prepared = deployer.prepare(release.app()?).await?;
    let plan = deployer.plan(Change::Deploy(Box::new(prepared))).await?;
    let mut print = |event: &Event| {
        // Events are plain data: serialising one does not fail.
        println!("{}", serde_json::to_string(event).unwrap_or_default());
    };
    deployer.apply(plan, &mut print).await?;
    Ok(())
}
