//! Ports.

use deploykit_core::model::{Port, PortName, Publish};

use crate::short::parse_port;
use crate::yaml::Node;

use super::Converter;

impl Converter<'_> {
    /// Published ports, then those that are only exposed. Those behind the first one are named by
    /// their number where the file does not name them.
    pub(super) fn ports(&mut self, service: &Node, path: &str) -> Vec<Port> {
        let mut ports: Vec<Port> = Vec::new();
        for node in service.get("ports").map(Node::items).unwrap_or_default() {
            let path = format!("{path}.ports");
            let published = node.str("published").filter(|text| !text.is_empty());
            let publish = match published.map(str::parse) {
                None => Publish::Public,
                Some(Ok(number)) => Publish::HostPort(number),
                Some(Err(_)) => {
                    self.problem(
                        node.span,
                        &path,
                        "a port is published at one port of the host, not at a range",
                    );
                    continue;
                }
            };
            let target =
                node.get("target").and_then(Node::as_int).and_then(|n| u16::try_from(n).ok());
            let http = matches!(node.str("app_protocol"), Some("http" | "http2" | "grpc"));
            let target = target.unwrap_or_default();
            let port = match node.str("protocol") {
                Some("udp") => Port::udp(target),
                Some("tcp") | None if http => Port::http(target),
                Some("tcp") | None => Port::tcp(target),
                Some(other) => {
                    self.problem(
                        node.span,
                        &path,
                        format!("the protocol `{other}` is not supported"),
                    );
                    continue;
                }
            };
            let name = node.get("name").and_then(|n| {
                let name = PortName::new(n.as_str().unwrap_or_default());
                self.parsed(n, &path, name)
            });
            ports.push(Port { name, ..port.publish(publish) });
        }
        for node in service.get("expose").map(Node::items).unwrap_or_default() {
            let parsed = parse_port(node.as_str().unwrap_or_default());
            for short in self.parsed(node, &format!("{path}.expose"), parsed).unwrap_or_default() {
                if ports.iter().any(|port| port.port == short.target) {
                    continue;
                }
                match short.protocol {
                    "udp" => ports.push(Port::udp(short.target)),
                    _ => ports.push(Port::tcp(short.target)),
                }
            }
        }
        for port in ports.iter_mut().skip(1).filter(|port| port.name.is_none()) {
            port.name = PortName::new(format!("p{}", port.port)).ok();
        }
        ports
    }
}
