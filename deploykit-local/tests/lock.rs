//! The deploy lock between clients of one supervisor.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::*;
use deploykit_core::{ErrorKind, StateStore as _};
use deploykit_local::Lifetime;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_client_that_is_gone_holds_no_lock_and_cannot_write_any_more() {
    let bed = Bed::new(Lifetime::Program);
    let host = bed.open().await;
    let client = bed.config().lifetime(Lifetime::Detached);
    let gone = deploykit_local::Local::open(client).await.unwrap();
    let old = gone.acquire(&app(), "gone", HOUR).await.unwrap();
    let error = host.acquire(&app(), "next", HOUR).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(
        error.to_string(),
        "take the deploy lock: gone is deploying this app; wait until it has finished \
         (backend local, app blog, holder gone)"
    );
    drop(gone);
    eventually("the lock is free", async || host.acquire(&app(), "next", HOUR).await.is_ok()).await;
    let late = host.put(&old.fence, "k", "v", deploykit_core::Expected::Absent).await;
    assert_eq!(late.unwrap_err().kind(), ErrorKind::Conflict);
    host.close().await;
}
