//! One deployer at a time.

use std::time::Duration;

use deploykit_core::{Change, Deployer, ErrorKind, Result, Silent};
use tokio::time::{Instant, sleep};

use crate::test::Test;

const TTL: Duration = Duration::from_secs(30);

async fn up(t: &Test, deployer: &Deployer) -> Result<()> {
    let ready = deployer.prepare(t.web("1", 1)).await?;
    let plan = deployer.plan(Change::Deploy(Box::new(ready))).await?;
    deployer.apply(plan, &mut Silent).await.map(drop)
}

pub(super) async fn a_second_deployer_is_refused_with_the_name_of_the_first(t: &Test) {
    let first = t.another().await;
    let lease = first.backend().state().acquire(t.name(), "alice on mars", TTL).await.unwrap();
    let refused = up(t, t.deployer()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert!(refused.to_string().contains("alice on mars"), "{refused}");
    let holder = refused.context().iter().find(|(key, _)| key == "holder");
    assert_eq!(holder.map(|(_, who)| who.as_str()), Some("alice on mars"));
    assert!(t.seen().await.is_empty() && t.history().await.is_empty(), "nothing was changed");
    first.backend().state().release(&lease).await.unwrap();
    up(t, t.deployer()).await.unwrap();
}

pub(super) async fn a_deployer_that_may_wait_waits(t: &Test) {
    let first = t.another().await;
    let lease = first.backend().state().acquire(t.name(), "alice", TTL).await.unwrap();
    let waiting = t.deployer().clone().with_lock_wait(Duration::from_secs(60));
    let began = Instant::now();
    let (done, ()) = tokio::join!(up(t, &waiting), async {
        sleep(Duration::from_millis(1500)).await;
        first.backend().state().release(&lease).await.unwrap();
    });
    done.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(1500));
}

pub(super) async fn the_lock_of_a_dead_deployer_is_taken_over(t: &Test) {
    let first = t.another().await;
    let ttl = Duration::from_secs(2);
    let began = Instant::now();
    let dead = first.backend().state().acquire(t.name(), "the dead", ttl).await.unwrap();
    let patient = t.deployer().clone().with_lock_wait(Duration::from_secs(60));
    up(t, &patient).await.unwrap();
    assert!(began.elapsed() >= ttl, "not before its lease has ended");
    let late = first.backend().state().renew(&dead, ttl).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Conflict);
}
