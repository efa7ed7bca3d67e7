//! The JSON of gRPC naming:
//! <https://pkg.go.dev/go.etcd.io/etcd/client/v3/naming/endpoints/internal#Update>.

use std::collections::BTreeMap;

use deploykit_core::Registered;
use deploykit_core::model::{Address, ServiceName};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Update {
    /// 0 is "add"; what is under a key was added, whatever it says.
    #[serde(default)]
    op: u8,
    addr: String,
    #[serde(default)]
    metadata: Value,
}

pub(super) fn write(instance: &Registered) -> Vec<u8> {
    let metadata = match instance.metadata.is_empty() {
        true => Value::Null,
        false => instance.metadata.iter().map(|(k, v)| (k.clone(), v.as_str())).collect(),
    };
    let update = Update { op: 0, addr: instance.address.to_string(), metadata };
    serde_json::json!(update).to_string().into_bytes()
}

/// None where it is not of that form: then it is not an instance.
pub(super) fn read(service: &ServiceName, id: &str, value: &[u8]) -> Option<Registered> {
    let update: Update = serde_json::from_slice(value).ok()?;
    let (host, port) = update.addr.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let address = Address { host, port: port.parse().ok()? };
    let mut instance = Registered::new(service.clone(), id, address);
    if let Value::Object(metadata) = update.metadata {
        let text = |value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        instance.metadata =
            metadata.into_iter().map(|(k, v)| (k, text(v))).collect::<BTreeMap<_, _>>();
    }
    Some(instance)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_go_writes_is_read() {
        let service = ServiceName::new("posts").unwrap();
        let text = br#"{"Op":0,"Addr":"10.0.0.1:80","Metadata":{"weight":3,"zone":"a"}}"#;
        let instance = read(&service, "x", text).unwrap();
        assert_eq!(instance.address.to_string(), "10.0.0.1:80");
        assert_eq!(instance.metadata["weight"], "3");
        assert_eq!(instance.metadata["zone"], "a");
        let bare = br#"{"Op":0,"Addr":"[::1]:80","Metadata":null}"#;
        let instance = read(&service, "x", bare).unwrap();
        assert_eq!(write(&instance), br#"{"Addr":"[::1]:80","Metadata":null,"Op":0}"#);
        assert_eq!(read(&service, "x", b"leader"), None);
    }
}
