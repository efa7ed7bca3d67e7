//! A lease of etcd, with what is under it.

use std::time::Duration;

use async_trait::async_trait;
use deploykit_core::Result;
use etcd_client::{
    Client, Compare, CompareOp, Error, LeaseKeepAliveStream, LeaseKeeper, PutOptions, Txn, TxnOp,
};
use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep_until, timeout};

use super::{CALL, answered};
use crate::error::{of_etcd, timed_out};
use crate::keeper::Leased;

/// How many entries are written by one transaction: etcd allows 128.
const ENTRIES: usize = 100;

/// For how long a removal is tried again: renewals wait for it.
const REMOVAL: Duration = Duration::from_secs(1);
/// What is tried again by who asked for it.
const ONCE: Duration = Duration::ZERO;

/// Until a renewal that failed is tried again.
const AGAIN: Duration = Duration::from_millis(300);

pub(super) struct Lease {
    client: Client,
    ttl: Duration,
    pub(super) id: i64,
    /// By this client's clock it lives at least until then.
    pub(super) until: Instant,
    /// When it is to be renewed.
    next: Instant,
    stream: Option<(LeaseKeeper, LeaseKeepAliveStream)>,
}

impl Lease {
    pub(super) fn new(client: Client, ttl: Duration) -> Self {
        let now = Instant::now();
        Self { client, ttl, id: 0, until: now, next: now, stream: None }
    }

    fn renewed(&mut self, sent: Instant, seconds: i64) {
        let lives = Duration::from_secs(seconds.unsigned_abs());
        self.until = sent + lives;
        self.next = sent + lives / 3;
    }

    async fn commit(&self, operation: &str, budget: Duration, all: Txn) -> Result<()> {
        let commit = || {
            let (mut client, all) = (self.client.clone(), all.clone());
            async move { client.txn(all).await }
        };
        answered(operation, budget, commit).await.map(drop)
    }

    async fn answer(&mut self) -> Result<i64, Error> {
        let (keeper, stream) = match &mut self.stream {
            Some(open) => open,
            none => none.insert(self.client.lease_keep_alive(self.id).await?),
        };
        keeper.keep_alive().await?;
        let answer = stream.message().await?;
        answer.map(|answer| answer.ttl()).ok_or_else(|| Error::WatchError("it ended".into()))
    }
}

#[async_trait]
impl Leased for Lease {
    async fn begin(&mut self) -> Result<()> {
        self.stream = None;
        let sent = Instant::now();
        let seconds = i64::try_from(self.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1);
        let grant = || {
            let mut client = self.client.clone();
            async move { client.lease_grant(seconds, None).await }
        };
        let granted = answered("ask for a lease", ONCE, grant).await?;
        self.id = granted.id();
        self.renewed(sent, granted.ttl());
        Ok(())
    }

    async fn write(&mut self, entries: &[(String, Vec<u8>)]) -> Result<()> {
        let put = |(key, value): &(String, Vec<u8>)| {
            let options = PutOptions::new().with_lease(self.id);
            TxnOp::put(key.as_str(), value.clone(), Some(options))
        };
        let write = |some: &[_]| {
            let all = Txn::new().and_then(some.iter().map(put).collect::<Vec<_>>());
            self.commit("register", ONCE, all)
        };
        try_join_all(entries.chunks(ENTRIES).map(write)).await.map(drop)
    }

    async fn remove(&mut self, keys: &[String]) -> Result<()> {
        let remove = |key: &String| {
            let ours = Compare::lease(key.as_str(), CompareOp::Equal, self.id);
            let remove = Txn::new().when([ours]).and_then([TxnOp::delete(key.as_str(), None)]);
            // Where a member has gone with the call, the next one is made to another.
            self.commit("deregister", REMOVAL, remove)
        };
        try_join_all(keys.iter().map(remove)).await.map(drop)
    }

    async fn due(&mut self) {
        sleep_until(self.next).await;
    }

    async fn renew(&mut self) -> Result<bool> {
        let sent = Instant::now();
        let lost = |error: &Error| match error {
            Error::LeaseKeepAliveError(message) => message.contains("not found"),
            Error::GRpcStatus(status) => status.code() as i32 == 5,
            _ => false,
        };
        let error = match timeout(CALL.min(self.ttl / 3), self.answer()).await {
            Ok(Ok(seconds)) if seconds > 0 => {
                self.renewed(sent, seconds);
                return Ok(true);
            }
            Ok(Ok(_)) => return Ok(false),
            Ok(Err(error)) if lost(&error) => return Ok(false),
            Ok(Err(error)) => of_etcd("renew a lease", error),
            Err(_) => timed_out("etcd", "renew a lease"),
        };
        self.stream = None;
        self.next = Instant::now() + AGAIN;
        Err(error)
    }

    async fn end(&mut self) {
        if self.id != 0 {
            let revoke = || {
                let (mut client, id) = (self.client.clone(), self.id);
                async move { client.lease_revoke(id).await }
            };
            // It would end by itself.
            let _ = answered("end a lease", ONCE, revoke).await;
        }
    }
}
