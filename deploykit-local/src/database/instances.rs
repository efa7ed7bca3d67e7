//! The instances that shall be, and what is known of their processes.

use std::time::SystemTime;

use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, Exit, Fence, InstanceSpec, Result};
use rusqlite::{OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};

use super::{BACKEND, Database, Failure, fenced};
use crate::process::Identity;

/// An instance as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct InstanceRow {
    pub(crate) app: AppName,
    pub(crate) spec: InstanceSpec,
    pub(crate) phase: Phase,
}

/// What an instance shall do, and what was last seen of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Phase {
    /// The port that it listens on for each that its service declares.
    pub(crate) ports: Vec<u16>,
    /// Whether it was asked to end.
    pub(crate) stopped: bool,
    /// Its process; absent between the decision to start it and the start.
    pub(crate) process: Option<Identity>,
    pub(crate) started_at: Option<SystemTime>,
    pub(crate) restarts: u32,
    /// How it ended last.
    pub(crate) exit: Option<Exit>,
    /// Whether it has ended for good.
    pub(crate) over: bool,
}

type Columns = (String, String, String);

impl InstanceRow {
    fn parse((app, spec, phase): Columns) -> Result<Self, Failure> {
        Ok(Self {
            app: AppName::new(app).map_err(|e| Failure::Unreadable(e.to_string()))?,
            spec: serde_json::from_str(&spec)?,
            phase: serde_json::from_str(&phase)?,
        })
    }
}

fn app_of(tx: &Transaction<'_>, id: &str) -> rusqlite::Result<Option<String>> {
    tx.prepare_cached("SELECT app FROM instances WHERE id = ?1")?.query_row([id], |row| row.get(0)).optional()
}

/// Refuses an instance of another app.
fn check_app(fence: &Fence, id: &str, app: &str) -> Result<(), Failure> {
    if fence.app == *app {
        return Ok(());
    }
    let message = format!("the instance {id} belongs to the app {app}");
    Err(Error::new(ErrorKind::AlreadyExists, "change an instance", message).on(BACKEND).with("app", &fence.app).into())
}

impl Database {
    /// Every instance, in the order of their ids.
    pub(crate) fn instances(&mut self) -> Result<Vec<InstanceRow>> {
        self.change("read the instances", |tx| {
            let mut statement = tx.prepare_cached("SELECT app, spec, phase FROM instances ORDER BY id")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            rows.map(|row| InstanceRow::parse(row?)).collect()
        })
    }

    /// Adds an instance. `false` where one of that id is there already, which is left as it is.
    pub(crate) fn add_instance(&mut self, fence: &Fence, row: &InstanceRow) -> Result<bool> {
        self.change("start an instance", |tx| {
            fenced(tx, fence)?;
            if let Some(app) = app_of(tx, &row.spec.id)? {
                check_app(fence, &row.spec.id, &app)?;
                return Ok(false);
            }
            tx.prepare_cached("INSERT INTO instances VALUES (?1, ?2, ?3, ?4)")?.execute((
                &row.spec.id,
                row.app.as_str(),
                serde_json::to_string(&row.spec)?,
                serde_json::to_string(&row.phase)?,
            ))?;
            Ok(true)
        })
    }

    /// Notes what became of an instance, by the supervisor's own right.
    pub(crate) fn note_phase(&mut self, id: &str, phase: &Phase) -> Result<()> {
        self.change("note what became of an instance", |tx| {
            tx.prepare_cached("UPDATE instances SET phase = ?2 WHERE id = ?1")?
                .execute((id, serde_json::to_string(phase)?))?;
            Ok(())
        })
    }

    /// Notes that a deployer asked an instance to end; `false` where there is none.
    pub(crate) fn note_stop(&mut self, fence: &Fence, id: &str, phase: &Phase) -> Result<()> {
        self.change("stop an instance", |tx| {
            fenced(tx, fence)?;
            if let Some(app) = app_of(tx, id)? {
                check_app(fence, id, &app)?;
            }
            tx.prepare_cached("UPDATE instances SET phase = ?2 WHERE id = ?1")?
                .execute((id, serde_json::to_string(phase)?))?;
            Ok(())
        })
    }

    /// Forgets an instance.
    pub(crate) fn remove_instance(&mut self, fence: &Fence, id: &str) -> Result<()> {
        self.change("remove an instance", |tx| {
            fenced(tx, fence)?;
            if let Some(app) = app_of(tx, id)? {
                check_app(fence, id, &app)?;
            }
            tx.prepare_cached("DELETE FROM instances WHERE id = ?1")?.execute([id])?;
            Ok(())
        })
    }

    /// Forgets an instance that never ran, by the supervisor's own right.
    pub(crate) fn forget_instance(&mut self, id: &str) -> Result<()> {
        self.change("forget an instance", |tx| {
            tx.prepare_cached("DELETE FROM instances WHERE id = ?1")?.execute([id])?;
            Ok(())
        })
    }
}
