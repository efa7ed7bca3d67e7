//! The client's errors as this library's.

use deploykit_core::{Error, ErrorKind};
use kube::core::Status;

use crate::rights;

pub(crate) const BACKEND: &str = "k8s";

/// An error of this backend.
pub(crate) fn error(kind: ErrorKind, operation: &str, message: impl Into<String>) -> Error {
    Error::new(kind, operation, message).on(BACKEND)
}

/// What an answer of the API server means
/// (<https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-error-handling>).
fn kind_of(status: &Status) -> ErrorKind {
    match (status.code, status.reason.as_str()) {
        (_, "AlreadyExists") => ErrorKind::AlreadyExists,
        (401, _) => ErrorKind::Unauthorized,
        // A quota that is used up is refused like a missing right.
        (403, _) if status.message.contains("exceeded quota") => ErrorKind::Failed,
        // So are objects that an admission webhook or policy does not let through.
        (403, _) if status.message.contains("denied the request") => ErrorKind::Invalid,
        (403, _) if status.message.contains("ValidatingAdmissionPolicy") => ErrorKind::Invalid,
        (403, _) => ErrorKind::Unauthorized,
        (404, _) => ErrorKind::NotFound,
        (409 | 412, _) => ErrorKind::Conflict,
        (400 | 422, _) => ErrorKind::Invalid,
        (408 | 504, _) => ErrorKind::Timeout,
        (410 | 429 | 500 | 502 | 503, _) => ErrorKind::Unavailable,
        _ => ErrorKind::Failed,
    }
}

/// Whether the role `edit` gives the right that is missing: not to kinds that only an app's raw
/// objects are of.
fn is_of_edit(refusal: &Status) -> bool {
    let Some(details) = &refusal.details else { return true };
    rights::is_needed(&details.group, &details.kind)
}

/// Maps an error of the client: `operation` is what was tried.
pub(crate) fn client(operation: &str) -> impl Fn(kube::Error) -> Error {
    let operation = operation.to_owned();
    move |source| match source {
        kube::Error::Api(status) => {
            let kind = kind_of(&status);
            let advice = match (kind, status.code) {
                (ErrorKind::Unauthorized, 403) if is_of_edit(&status) => {
                    "; give the user the role `edit` in the namespace"
                }
                (ErrorKind::Unauthorized, 403) => {
                    "; give the user a role that allows it: `edit` does not"
                }
                (ErrorKind::Unauthorized, _) => "; log in again",
                _ => "",
            };
            let told = if status.message.is_empty() { &status.reason } else { &status.message };
            error(kind, &operation, format!("the API server says: {told}{advice}"))
                .with("status", status.code)
        }
        kube::Error::Auth(source) => {
            let message = "the credentials of the kubeconfig cannot be had";
            error(ErrorKind::Unauthorized, &operation, message).because(source)
        }
        kube::Error::SerdeError(source) => {
            let message = "the answer of the API server cannot be read";
            error(ErrorKind::Corrupt, &operation, message).because(source)
        }
        other => {
            let message = format!("the API server cannot be reached: {}", chain(&other));
            error(ErrorKind::Unavailable, &operation, message)
        }
    }
}

/// An error with its causes: the client's own text often leaves out what matters.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
