//! Deploy locks. Whether a lease has run out is the supervisor's matter, who has the clock.

use std::time::Duration;

use deploykit_core::model::AppName;
use deploykit_core::{Error, ErrorKind, Fence, Lease, Result};
use rusqlite::OptionalExtension as _;

use super::{BACKEND, Database, error};

impl Database {
    /// The leases that have not been given back, with their length.
    pub(crate) fn held(&self) -> Result<Vec<(AppName, Duration)>> {
        let rows: rusqlite::Result<Vec<(String, u64)>> = self
            .connection
            .prepare_cached("SELECT app, ttl_ms FROM leases WHERE holder IS NOT NULL")
            .and_then(|mut statement| statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect());
        let rows = rows.map_err(|e| error::database("read the deploy locks", e))?;
        let lease = |(app, ttl): (String, u64)| Some((AppName::new(app).ok()?, Duration::from_millis(ttl)));
        Ok(rows.into_iter().filter_map(lease).collect())
    }

    /// Gives the lock of `app` to `holder`, with an epoch greater than any before. `expired` says
    /// whether a lease that is there has run out.
    pub(crate) fn acquire(&mut self, app: &AppName, holder: &str, ttl: Duration, expired: bool) -> Result<Lease> {
        self.change("take the deploy lock", |tx| {
            let found: Option<(u64, Option<String>)> = tx
                .prepare_cached("SELECT epoch, holder FROM leases WHERE app = ?1")?
                .query_row([app.as_str()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((_, Some(other))) = &found
                && !expired
            {
                let message = format!("{other} is deploying this app; wait until it has finished");
                let error = Error::new(ErrorKind::Conflict, "take the deploy lock", message);
                return Err(error.on(BACKEND).with("app", app).with("holder", other).into());
            }
            let epoch = found.map_or(0, |(epoch, _)| epoch) + 1;
            tx.prepare_cached("INSERT OR REPLACE INTO leases VALUES (?1, ?2, ?3, ?4)")?
                .execute((app.as_str(), epoch, holder, millis(ttl)))?;
            Ok(Lease { fence: Fence { app: app.clone(), epoch }, holder: holder.to_owned() })
        })
    }

    /// Says that a lease still holds.
    pub(crate) fn renew(&mut self, lease: &Lease, ttl: Duration) -> Result<()> {
        self.change("renew the deploy lock", |tx| {
            let sql = "UPDATE leases SET ttl_ms = ?3 WHERE app = ?1 AND epoch = ?2 AND holder IS NOT NULL";
            let fence = &lease.fence;
            if tx.prepare_cached(sql)?.execute((fence.app.as_str(), fence.epoch, millis(ttl)))? == 1 {
                return Ok(());
            }
            let message = "the deploy lock was taken over by another deployer; run it again";
            let error = Error::new(ErrorKind::Conflict, "renew the deploy lock", message);
            Err(error.on(BACKEND).with("app", &fence.app).with("epoch", fence.epoch).into())
        })
    }

    /// Gives a lease back; one that was lost is no error. The epoch stays.
    pub(crate) fn release(&mut self, lease: &Lease) -> Result<()> {
        self.change("give the deploy lock back", |tx| {
            tx.prepare_cached("UPDATE leases SET holder = NULL WHERE app = ?1 AND epoch = ?2")?
                .execute((lease.fence.app.as_str(), lease.fence.epoch))?;
            Ok(())
        })
    }
}

fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 1)
}
