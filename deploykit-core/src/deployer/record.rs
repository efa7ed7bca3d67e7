//! How revisions and runs of jobs are kept in a state store.

use futures_util::future::try_join_all;

use crate::error::{Error, ErrorKind, Result};
use crate::model::{AppName, ServiceName};
use crate::revision::Revision;
use crate::state::{Expected, Fence, StateStore};

const REVISIONS: &str = "revisions/";
const RUNS: &str = "runs/";

/// The record of one app.
#[derive(Clone, Copy)]
pub(super) struct Record<'a> {
    pub(super) state: &'a dyn StateStore,
    pub(super) app: &'a AppName,
}

/// A revision that is being applied, with the version of its entry.
pub(super) struct Written {
    pub(super) revision: Revision,
    version: u64,
}

/// Keys sort as their numbers do.
fn key(number: u64) -> String {
    format!("{REVISIONS}{number:012}")
}

fn corrupt(app: &AppName, key: &str, why: impl std::fmt::Display) -> Error {
    let message = format!("the entry {key} cannot be read: {why}");
    Error::new(ErrorKind::Corrupt, "read the record of the app", message).with("app", app)
}

impl Record<'_> {
    /// The numbers of the revisions that are kept, in their order.
    pub(super) async fn numbers(&self) -> Result<Vec<u64>> {
        let keys = self.state.keys(self.app, REVISIONS).await?;
        keys.iter()
            .map(|key| {
                let digits = key.trim_start_matches(REVISIONS);
                digits.parse().map_err(|e| corrupt(self.app, key, e))
            })
            .collect()
    }

    /// A revision with the version of its entry.
    async fn entry(&self, number: u64) -> Result<Option<Written>> {
        let key = key(number);
        let Some(entry) = self.state.get(self.app, &key).await? else { return Ok(None) };
        let revision =
            serde_json::from_str(&entry.value).map_err(|e| corrupt(self.app, &key, e))?;
        Ok(Some(Written { revision, version: entry.version }))
    }

    pub(super) async fn revision(&self, number: u64) -> Result<Option<Revision>> {
        Ok(self.entry(number).await?.map(|written| written.revision))
    }

    pub(super) async fn newest(&self) -> Result<Option<Revision>> {
        match self.numbers().await?.last() {
            Some(number) => self.revision(*number).await,
            None => Ok(None),
        }
    }

    /// All revisions that are kept, oldest first.
    pub(super) async fn all(&self) -> Result<Vec<Revision>> {
        let numbers = self.numbers().await?;
        let revisions = try_join_all(numbers.into_iter().map(|n| self.revision(n))).await?;
        Ok(revisions.into_iter().flatten().collect())
    }

    /// Writes a new revision.
    pub(super) async fn add(&self, fence: &Fence, revision: Revision) -> Result<Written> {
        let value = self.text(&revision)?;
        let key = key(revision.number);
        let version = self.state.put(fence, &key, &value, Expected::Absent).await?;
        Ok(Written { revision, version })
    }

    /// Writes what has become of a revision.
    pub(super) async fn update(&self, fence: &Fence, written: &mut Written) -> Result<()> {
        let value = self.text(&written.revision)?;
        let key = key(written.revision.number);
        let expected = Expected::Version(written.version);
        written.version = self.state.put(fence, &key, &value, expected).await?;
        Ok(())
    }

    /// Writes what has become of an earlier revision.
    pub(super) async fn amend(
        &self,
        fence: &Fence,
        number: u64,
        change: impl FnOnce(&mut Revision),
    ) -> Result<()> {
        let Some(mut written) = self.entry(number).await? else { return Ok(()) };
        change(&mut written.revision);
        self.update(fence, &mut written).await
    }

    fn text(&self, revision: &Revision) -> Result<String> {
        serde_json::to_string(revision).map_err(|e| corrupt(self.app, &key(revision.number), e))
    }

    /// Whether a job has run to success in a run of that name.
    pub(super) async fn has_run(&self, job: &ServiceName, run: &str) -> Result<bool> {
        Ok(self.state.get(self.app, &format!("{RUNS}{job}/{run}")).await?.is_some())
    }

    /// Notes that a job has run to success; once is enough.
    pub(super) async fn add_run(&self, fence: &Fence, job: &ServiceName, run: &str) -> Result<()> {
        let key = format!("{RUNS}{job}/{run}");
        match self.state.put(fence, &key, "{}", Expected::Absent).await {
            Err(error) if error.kind() == ErrorKind::Conflict => {
                // Either somebody noted it already, or our right to write is gone.
                if self.has_run(job, run).await? { Ok(()) } else { Err(error) }
            }
            done => done.map(drop),
        }
    }

    pub(super) async fn forget(&self, fence: &Fence, number: u64) -> Result<()> {
        self.delete(fence, &key(number)).await
    }

    /// Deletes everything, the newest revision last: a removal that was killed finds it again.
    pub(super) async fn clear(&self, fence: &Fence) -> Result<()> {
        let runs = self.state.keys(self.app, RUNS).await?;
        let revisions = self.state.keys(self.app, REVISIONS).await?;
        for key in runs.iter().chain(&revisions) {
            self.delete(fence, key).await?;
        }
        Ok(())
    }

    async fn delete(&self, fence: &Fence, key: &str) -> Result<()> {
        match self.state.get(self.app, key).await? {
            Some(entry) => self.state.delete(fence, key, entry.version).await,
            None => Ok(()),
        }
    }
}
