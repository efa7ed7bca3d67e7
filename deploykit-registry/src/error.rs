//! What clients report, as errors of ours.

use deploykit_core::{Error, ErrorKind};

#[cfg(feature = "etcd")]
pub(crate) fn of_etcd(operation: &str, error: etcd_client::Error) -> Error {
    use etcd_client::Error as E;
    let kind = match &error {
        E::InvalidArgs(_) | E::InvalidUri(_) | E::InvalidMetadataValue(_) => ErrorKind::Invalid,
        E::IoError(_) | E::TransportError(_) | E::EndpointError(_) | E::WatchError(_) => {
            ErrorKind::Unavailable
        }
        E::LeaseKeepAliveError(_) => ErrorKind::Unavailable,
        // https://grpc.github.io/grpc/core/md_doc_statuscodes.html
        E::GRpcStatus(status) => match status.code() as i32 {
            3 if ["authentication failed", "user name is empty"]
                .iter()
                .any(|said| status.message().contains(said)) =>
            {
                ErrorKind::Unauthorized
            }
            3 => ErrorKind::Invalid,
            4 => ErrorKind::Timeout,
            5 => ErrorKind::NotFound,
            6 => ErrorKind::AlreadyExists,
            7 | 16 => ErrorKind::Unauthorized,
            // Unknown is also how a connection that broke is reported.
            1 | 2 | 8 | 14 => ErrorKind::Unavailable,
            12 => ErrorKind::Unsupported,
            _ => ErrorKind::Failed,
        },
        _ => ErrorKind::Failed,
    };
    let message = match kind {
        ErrorKind::Unauthorized => "the user may not; check user, password and roles",
        ErrorKind::Unavailable => "no member answered; check the addresses, and whether most run",
        _ => "it was refused",
    };
    Error::new(kind, operation, message).on("etcd").because(error)
}

#[cfg(feature = "zookeeper")]
pub(crate) fn of_zookeeper(operation: &str, error: zookeeper_client::Error) -> Error {
    use zookeeper_client::Error as E;
    let (kind, message) = match &error {
        E::NoNode => (ErrorKind::NotFound, "there is no such node"),
        E::NodeExists => (ErrorKind::AlreadyExists, "there is such a node already"),
        E::BadVersion | E::NotEmpty => (ErrorKind::Conflict, "it was changed meanwhile"),
        E::NoAuth | E::AuthFailed | E::InvalidAcl => {
            (ErrorKind::Unauthorized, "the user may not; check user, password and ACLs")
        }
        E::BadArguments(_) => (ErrorKind::Invalid, "the arguments are wrong"),
        E::Unimplemented => (ErrorKind::Unsupported, "the server knows no such call"),
        E::Timeout => (ErrorKind::Timeout, "no server answered in time"),
        E::NoHosts
        | E::SessionExpired
        | E::ConnectionLoss
        | E::SessionMoved
        | E::ClientClosed
        | E::Throttled
        | E::NotReadOnly
        // How a connection that broke while it was written to is reported.
        | E::Custom(_) => (
            ErrorKind::Unavailable,
            "no server answered; check the addresses, and whether most run",
        ),
        _ => (ErrorKind::Failed, "it failed"),
    };
    Error::new(kind, operation, message).on("zookeeper").because(error)
}

/// A call that took longer than it may.
pub(crate) fn timed_out(backend: &str, operation: &str) -> Error {
    Error::new(ErrorKind::Timeout, operation, "no answer in time; trying again may help")
        .on(backend)
}
