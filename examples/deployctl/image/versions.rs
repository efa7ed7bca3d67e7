//! The versions of a repository.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use deploykit::oci::versions::{self, PrunePlan, Version, live_digests, plan_prune};
use deploykit::oci::{Digest, Layout, Reference, RegistryClient};
use deploykit::{Error, ErrorKind, Result};

use super::reference;
use crate::file;
use crate::output::{Output, table};

/// The versions in a repository.
pub async fn list(client: &RegistryClient, repository: &Reference, output: &Output) -> Result<()> {
    let versions = versions::versions(client, repository).await?;
    let row = |version: &Version| {
        let created = version.created.clone().unwrap_or_default();
        let size = indicatif::HumanBytes(version.size).to_string();
        [version.tags.join(", "), version.digest.to_string(), size, created]
    };
    let headings = ["TAGS", "DIGEST", "SIZE", "CREATED"];
    output.value(&versions, || table(headings, versions.iter().map(row).collect()))
}

/// From one repository to another.
pub async fn promote(
    client: RegistryClient,
    from: &Reference,
    to: &Reference,
    through: &Layout,
    output: &Output,
) -> Result<()> {
    let (from, to) = (from.clone().pinned(), to.clone().pinned());
    let done = versions::promote(&client, &from, &to, through).await?;
    // Before the answer: bars end with it.
    drop(client);
    output.value(&done, || {
        let mut said = format!("promoted {from} to {to}: {}", done.digest);
        if done.attached > 0 {
            said.push_str(&format!(", with {} signatures or the like", done.attached));
        }
        if let Some(replaced) = &done.replaced {
            said.push_str(&format!("\nit was {replaced} before"));
        }
        said
    })
}

/// A plan is made with --keep and --used-on, and carried out with --plan.
#[derive(clap::Args)]
pub struct PruneArguments {
    #[arg(value_parser = reference, required_unless_present = "plan", conflicts_with = "plan")]
    repository: Option<Reference>,
    /// How many of the newest versions stay.
    #[arg(long, value_name = "N", requires = "used_on", required_unless_present = "plan")]
    keep: Option<NonZeroUsize>,
    /// A backend whose revisions' images stay, like local:// or k8s://; repeatable: name all that
    /// run images of the repository.
    #[arg(long, value_name = "URL", conflicts_with = "plan")]
    used_on: Vec<String>,
    /// Write the plan to this file, for --plan.
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    out: Option<PathBuf>,
    /// Delete what the plan in this file says, unless the tags have changed since.
    #[arg(long, value_name = "FILE", conflicts_with = "keep")]
    plan: Option<PathBuf>,
}

impl PruneArguments {
    pub async fn run(&self, client: &RegistryClient, output: &Output) -> Result<()> {
        if let Some(path) = &self.plan {
            let plan: PrunePlan = serde_json::from_str(&file::text(path)?).map_err(|e| {
                Error::new(ErrorKind::Invalid, "read the plan", e.to_string())
                    .with("file", path.display())
            })?;
            let done = plan.apply(client).await?;
            return output.value(&done, || {
                let (versions, attached) = (done.versions, done.attached);
                format!(
                    "{}: {versions} versions and {attached} signatures or the like are \
                         deleted",
                    plan.repository
                )
            });
        }
        // clap asks for both where there is no plan.
        let (Some(repository), Some(keep)) = (&self.repository, self.keep) else { return Ok(()) };
        let mut live: BTreeSet<Digest> = BTreeSet::new();
        for url in &self.used_on {
            let deployer = deploykit::open(url).await?;
            for app in deployer.apps().await? {
                live.extend(live_digests(&deployer.history(&app).await?));
            }
        }
        let plan = plan_prune(client, repository, keep, &live).await?;
        if let Some(path) = &self.out {
            let text = serde_json::to_string_pretty(&plan)
                .map_err(|e| Error::new(ErrorKind::Failed, "write the plan", e.to_string()))?;
            file::write(path, &text)?;
        }
        output.value(&plan, || plan.to_string())
    }
}
