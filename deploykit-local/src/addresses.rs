//! Addresses: a stable one for each service, and ports for instances.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use aws_lc_rs::digest::{SHA256, digest};
use deploykit_core::model::{AppName, ServiceName};

/// How many addresses are tried for a service before it gets another port.
pub(crate) const TRIES: u8 = 8;
/// Where instances listen, and where ports are published: this machine alone.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Instance ports come from here up to the range that the kernel takes outgoing ports from.
const LOWEST: u16 = 10_000;

/// The address of a service: 127.77.a.b, where a and b follow from the folder and the names. The
/// same app in another folder gets another one; `attempt` gives further candidates.
pub(crate) fn service_address(folder_id: &str, app: &AppName, service: &ServiceName, attempt: u8) -> IpAddr {
    let hash = digest(&SHA256, format!("{folder_id}/{app}/{service}/{attempt}").as_bytes());
    // .0 and .255 in the last place look like networks to some programs.
    let (a, b) = (hash.as_ref()[0], 1 + hash.as_ref()[1] % 254);
    IpAddr::V4(Ipv4Addr::new(127, 77, a, b))
}

/// Gives out ports that nothing listens on and no other instance of this folder has.
#[derive(Debug)]
pub(crate) struct Ports {
    taken: BTreeSet<u16>,
    range: (u16, u16),
    next: u16,
}

impl Ports {
    /// Begins at a place that follows from the folder, so that two supervisors on a machine
    /// seldom meet.
    pub(crate) fn new(folder_id: &str) -> Self {
        let outgoing = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
        let first: Option<u16> = outgoing.and_then(|text| text.split_ascii_whitespace().next()?.parse().ok());
        let range = match first {
            Some(first) if first > LOWEST + 2_000 => (LOWEST, first),
            // Nearly everything is for outgoing connections: whatever can be had.
            _ => (LOWEST, u16::MAX),
        };
        let hash = digest(&SHA256, folder_id.as_bytes());
        let seed = u16::from_be_bytes([hash.as_ref()[0], hash.as_ref()[1]]);
        Self { taken: BTreeSet::new(), range, next: range.0 + seed % (range.1 - range.0) }
    }

    /// Notes ports of an instance that is known already.
    pub(crate) fn keep(&mut self, ports: &[u16]) {
        self.taken.extend(ports);
    }

    /// Gives ports back.
    pub(crate) fn release(&mut self, ports: &[u16]) {
        for port in ports {
            self.taken.remove(port);
        }
    }

    /// Takes `count` ports.
    ///
    /// # Errors
    /// `AddrInUse` where no port is left.
    pub(crate) fn take(&mut self, count: usize) -> io::Result<Vec<u16>> {
        let mut ports = Vec::with_capacity(count);
        for _ in 0..(self.range.1 - self.range.0) {
            if ports.len() == count {
                return Ok(ports);
            }
            let port = self.next;
            self.next = if port + 1 < self.range.1 { port + 1 } else { self.range.0 };
            if !self.taken.contains(&port) && is_free(port) {
                self.taken.insert(port);
                ports.push(port);
            }
        }
        self.release(&ports);
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is left for an instance"))
    }
}

/// Whether an instance can listen on `port`.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(SocketAddr::new(LOOPBACK, port)).is_ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_services_address_is_stable_and_its_own() {
        let (app, posts) = (AppName::new("blog").unwrap(), ServiceName::new("posts").unwrap());
        let web = ServiceName::new("web").unwrap();
        let address = service_address("f1", &app, &posts, 0);
        assert_eq!(address, service_address("f1", &app, &posts, 0));
        assert!(address.to_string().starts_with("127.77."), "{address}");
        let others = [
            service_address("f1", &app, &posts, 1),
            service_address("f1", &app, &web, 0),
            service_address("f2", &app, &posts, 0),
        ];
        assert!(others.iter().all(|other| *other != address));
        // The whole range can be bound without any preparation.
        TcpListener::bind(SocketAddr::new(address, 0)).unwrap();
    }

    #[test]
    fn ports_are_free_and_given_out_once() {
        let mut ports = Ports::new("f1");
        let first = ports.take(3).unwrap();
        let second = ports.take(3).unwrap();
        assert!(first.iter().all(|port| !second.contains(port)));
        let listener = TcpListener::bind(SocketAddr::new(LOOPBACK, ports.next)).unwrap();
        let third = ports.take(1).unwrap();
        assert_ne!(third[0], listener.local_addr().unwrap().port());
        assert!(!is_free(listener.local_addr().unwrap().port()));
    }

    #[test]
    fn when_all_are_taken_it_says_so_and_keeps_none() {
        let mut ports = Ports { taken: BTreeSet::new(), range: (28_400, 28_402), next: 28_400 };
        assert_eq!(ports.take(3).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(ports.taken.is_empty());
    }
}
