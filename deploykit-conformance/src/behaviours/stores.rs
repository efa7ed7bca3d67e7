//! The backend's stores.

use crate::contract;
use crate::test::Test;

pub(super) async fn state(t: &Test) {
    contract::state(t.backend().state(), t.name()).await;
}

pub(super) async fn secrets(t: &Test) {
    let readable = t.backend().capabilities().secrets_readable;
    contract::secrets(t.backend().secrets(), t.name(), readable).await;
}
