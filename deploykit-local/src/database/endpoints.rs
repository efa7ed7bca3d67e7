//! The stable addresses of services, and where their requests go.

use std::collections::BTreeSet;

use deploykit_core::model::{AppName, ServiceName};
use deploykit_core::{EndpointPort, EndpointSpec, Fence, Result};

use super::{Database, Failure, fenced};

/// An endpoint as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EndpointRow {
    pub(crate) app: AppName,
    pub(crate) spec: EndpointSpec,
    pub(crate) ports: Vec<EndpointPort>,
    pub(crate) routed: BTreeSet<String>,
}

impl Database {
    /// Every endpoint.
    pub(crate) fn endpoints(&mut self) -> Result<Vec<EndpointRow>> {
        self.change("read the endpoints", |tx| {
            let mut statement = tx.prepare_cached("SELECT app, spec, ports, routed FROM endpoints")?;
            let rows = statement.query_map([], |row| {
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?, row.get::<_, String>(3)?))
            })?;
            rows.map(|row| {
                let (app, spec, ports, routed) = row?;
                Ok(EndpointRow {
                    app: AppName::new(app).map_err(|e| Failure::Unreadable(e.to_string()))?,
                    spec: serde_json::from_str(&spec)?,
                    ports: serde_json::from_str(&ports)?,
                    routed: serde_json::from_str(&routed)?,
                })
            })
            .collect()
        })
    }

    /// Writes an endpoint, new or changed.
    pub(crate) fn put_endpoint(&mut self, fence: &Fence, row: &EndpointRow) -> Result<()> {
        self.change("make an endpoint", |tx| {
            fenced(tx, fence)?;
            tx.prepare_cached("INSERT OR REPLACE INTO endpoints VALUES (?1, ?2, ?3, ?4, ?5)")?.execute((
                row.app.as_str(),
                row.spec.service.as_str(),
                serde_json::to_string(&row.spec)?,
                serde_json::to_string(&row.ports)?,
                serde_json::to_string(&row.routed)?,
            ))?;
            Ok(())
        })
    }

    /// Notes where new requests go.
    pub(crate) fn route(&mut self, fence: &Fence, service: &ServiceName, routed: &BTreeSet<String>) -> Result<()> {
        self.change("route requests", |tx| {
            fenced(tx, fence)?;
            tx.prepare_cached("UPDATE endpoints SET routed = ?3 WHERE app = ?1 AND service = ?2")?.execute((
                fence.app.as_str(),
                service.as_str(),
                serde_json::to_string(routed)?,
            ))?;
            Ok(())
        })
    }

    /// Forgets an endpoint.
    pub(crate) fn remove_endpoint(&mut self, fence: &Fence, service: &ServiceName) -> Result<()> {
        self.change("remove an endpoint", |tx| {
            fenced(tx, fence)?;
            tx.prepare_cached("DELETE FROM endpoints WHERE app = ?1 AND service = ?2")?
                .execute((fence.app.as_str(), service.as_str()))?;
            Ok(())
        })
    }
}
