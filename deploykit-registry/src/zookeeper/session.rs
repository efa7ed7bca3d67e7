//! A session of ZooKeeper, with the ephemeral nodes that are under it.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::{ErrorKind, Result};
use futures_util::future::try_join_all;
use zookeeper_client::{Acls, Client, CreateMode, StateWatcher};

use super::{Connect, within};
use crate::keeper::Leased;

pub(super) struct Session {
    connect: Connect,
    ttl: Duration,
    open: Option<(Client, StateWatcher)>,
}

impl Session {
    pub(super) fn new(connect: Connect, ttl: Duration) -> Self {
        Self { connect, ttl, open: None }
    }

    async fn client(&mut self) -> Result<Client> {
        self.begin().await?;
        match &self.open {
            Some((client, _)) => Ok(client.clone()),
            None => self.connect.connect(self.ttl).await,
        }
    }
}

#[async_trait]
impl Leased for Session {
    async fn begin(&mut self) -> Result<()> {
        if self.open.as_ref().is_none_or(|(client, _)| client.state().is_terminated()) {
            let client = self.connect.connect(self.ttl).await?;
            let states = client.state_watcher();
            self.open = Some((client, states));
        }
        Ok(())
    }

    async fn write(&mut self, entries: &[(String, Vec<u8>)]) -> Result<()> {
        let client = self.client().await?;
        let connect = &self.connect;
        try_join_all(entries.iter().map(|(path, data)| write(connect, &client, path, data)))
            .await?;
        Ok(())
    }

    async fn remove(&mut self, paths: &[String]) -> Result<()> {
        let client = self.client().await?;
        try_join_all(paths.iter().map(|path| remove(&client, path))).await?;
        Ok(())
    }

    async fn due(&mut self) {
        if let Some((_, states)) = &mut self.open {
            while !states.changed().await.is_terminated() {}
        }
    }

    async fn renew(&mut self) -> Result<bool> {
        Ok(self.open.as_ref().is_some_and(|(client, _)| !client.state().is_terminated()))
    }

    async fn end(&mut self) {
        // The session ends with its last client.
        self.open = None;
    }
}

/// Makes the node ours, whoever's it was: an older registration of the same id gives way.
async fn write(connect: &Connect, client: &Client, path: &str, data: &[u8]) -> Result<()> {
    let acls = connect.acls();
    let options = CreateMode::Ephemeral.with_acls(Acls::new(&acls));
    loop {
        match within("register", client.create(path, data, &options)).await {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                connect.make_folder(client, folder).await?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let Some(stat) = within("register", client.check_stat(path)).await? else {
                    continue;
                };
                if stat.ephemeral_owner == client.session_id().0 {
                    match within("register", client.set_data(path, data, None)).await {
                        Ok(_) => return Ok(()),
                        Err(error) if error.kind() == ErrorKind::NotFound => {}
                        Err(error) => return Err(error),
                    }
                } else {
                    // In one: whoever reads meanwhile misses nothing.
                    let mut take_over = client.new_multi_writer();
                    within("register", async { take_over.add_delete(path, Some(stat.version)) })
                        .await?;
                    within("register", async { take_over.add_create(path, data, &options) })
                        .await?;
                    let taken = within("register", async { Ok(take_over.commit().await?) });
                    match taken.await {
                        Ok(_) => return Ok(()),
                        changed => gone(changed.map(drop))?,
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
}

async fn remove(client: &Client, path: &str) -> Result<()> {
    let Some(stat) = within("deregister", client.check_stat(path)).await? else {
        return Ok(());
    };
    if stat.ephemeral_owner == client.session_id().0 {
        gone(within("deregister", client.delete(path, Some(stat.version))).await)?;
    }
    Ok(())
}

/// What somebody else removed, or changed, meanwhile is not there as it was: that is enough.
fn gone(removed: Result<()>) -> Result<()> {
    match removed {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => Ok(()),
        other => other,
    }
}
