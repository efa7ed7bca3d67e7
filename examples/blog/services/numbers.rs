//! Numbers that writers give to what they write, so that a write may be sent twice and is done once.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use hyper::StatusCode;

use crate::http::{Answer, Refusal};

static LAST: AtomicI64 = AtomicI64::new(0);

/// Writes under a new number; under another one where two writers have drawn the same.
pub async fn write<F: Future<Output = Result<Answer, Refusal>>>(
    put: impl Fn(i64) -> F,
) -> Result<Answer, Refusal> {
    for _ in 0..2 {
        let answer = put(new()?).await?;
        if answer.status() != StatusCode::CONFLICT {
            return Ok(answer);
        }
    }
    put(new()?).await
}

/// A number that grows with time, and is exact in JSON: of its 53 bits, 41 are milliseconds and 12
/// are drawn.
fn new() -> Result<i64, Refusal> {
    let mut drawn = [0; 2];
    aws_lc_rs::rand::fill(&mut drawn).map_err(|_| {
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the system has no random numbers")
    })?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let now = i64::try_from(now).unwrap_or_default() << 12;
    let number = now | i64::from(u16::from_le_bytes(drawn) >> 4);
    let next = |last: i64| Some(number.max(last + 1));
    let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    Ok(number.max(last.unwrap_or_default() + 1))
}
