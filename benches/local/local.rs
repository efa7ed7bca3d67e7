//! A deployer on a state folder of its own.

use std::time::Instant;

use deploykit::model::{App, AppName};
use deploykit::{Change, Deployer, Silent};
use deploykit_benches::{Result, median};
use tempfile::TempDir;

/// An app on local processes that is removed at the end.
pub(crate) struct Local {
    pub(crate) deployer: Deployer,
    pub(crate) folder: TempDir,
}

/// What a deploy took, in seconds.
#[derive(Clone, Copy)]
pub(crate) struct Phases {
    pub(crate) prepare: f64,
    pub(crate) plan: f64,
    pub(crate) apply: f64,
}

impl Phases {
    pub(crate) fn whole(self) -> f64 {
        self.prepare + self.plan + self.apply
    }

    /// The median of each, for people.
    pub(crate) fn tell(all: &[Self]) -> String {
        let of = |phase: fn(&Self) -> f64| median(all.iter().map(phase)) * 1e3;
        let (prepare, plan, apply) = (of(|p| p.prepare), of(|p| p.plan), of(|p| p.apply));
        format!("prepare {prepare:.1} ms, plan {plan:.1} ms, apply {apply:.1} ms")
    }
}

impl Local {
    /// Opens a new state folder: the supervisor starts here.
    pub(crate) async fn open() -> Result<Self> {
        let folder = TempDir::new()?;
        let deployer = deploykit::open(&format!("local://{}", folder.path().display())).await?;
        Ok(Self { deployer, folder })
    }

    /// Prepares, plans and applies; returns when everything is ready.
    pub(crate) async fn deploy(&self, app: App) -> Result<Phases> {
        let start = Instant::now();
        let resolved = self.deployer.prepare(app).await?;
        let prepared = start.elapsed().as_secs_f64();
        let plan = self.deployer.plan(Change::Deploy(Box::new(resolved))).await?;
        let planned = start.elapsed().as_secs_f64();
        self.deployer.apply(plan, &mut Silent).await?;
        let applied = start.elapsed().as_secs_f64();
        Ok(Phases { prepare: prepared, plan: planned - prepared, apply: applied - planned })
    }

    /// Removes the app; the supervisor ends when it has nothing left.
    pub(crate) async fn remove(&self, app: &str) -> Result<()> {
        let change = Change::Remove { app: AppName::new(app)?, volumes: true };
        let plan = self.deployer.plan(change).await?;
        self.deployer.apply(plan, &mut Silent).await?;
        Ok(())
    }
}
