//! The account that the pods of a service or job run under.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::{Manifest, Part};

/// The ServiceAccount of a service or job that has one of its own. Whether pods find its token is
/// theirs to say, so that others which name it do not.
pub(crate) fn account(part: &Part<'_>) -> Option<Manifest> {
    part.template.service_account?;
    Some(Manifest::of(&ServiceAccount {
        metadata: part.metadata(part.object_name()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }))
}
