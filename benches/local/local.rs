//! A deployer on a state folder of its own.

use deploykit::model::{App, AppName};
use deploykit::{Change, Deployer, Silent};
use deploykit_benches::Result;
use tempfile::TempDir;

/// An app on local processes that is removed at the end.
pub(crate) struct Local {
    pub(crate) deployer: Deployer,
    pub(crate) folder: TempDir,
}

impl Local {
    /// Opens a new state folder: the supervisor starts here.
    pub(crate) async fn open() -> Result<Self> {
        let folder = TempDir::new()?;
        let deployer = deploykit::open(&format!("local://{}", folder.path().display())).await?;
        Ok(Self { deployer, folder })
    }

    /// Prepares, plans and applies; returns when everything is ready.
    pub(crate) async fn deploy(&self, app: App) -> Result<()> {
        let resolved = self.deployer.prepare(app).await?;
        let plan = self.deployer.plan(Change::Deploy(Box::new(resolved))).await?;
        self.deployer.apply(plan, &mut Silent).await?;
        Ok(())
    }

    /// Removes the app; the supervisor ends when it has nothing left.
    pub(crate) async fn remove(&self, app: &str) -> Result<()> {
        let change = Change::Remove { app: AppName::new(app)?, volumes: true };
        let plan = self.deployer.plan(change).await?;
        self.deployer.apply(plan, &mut Silent).await?;
        Ok(())
    }
}
